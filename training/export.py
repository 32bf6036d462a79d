"""Writes the trained cascade as diffusers pipeline folders, and reference tensors for the engine.

    export.py RUNS MODELS [--reference DIR] [--atlas DIR [--waves 1 2]]

RUNS holds the runs text, base, sr256 and sr1024; a stage without a run is exported untrained only
with --untrained. A run base-fast, the few-step network of the preset "fast", may be there too; without
it the cascade has no presets. With the atlas that it was trained on the folder also gets vocabulary.json.
The reference is computed in float32 from the exported fp16 weights.
"""

import threads  # noqa: F401  (before torch)

import argparse
import json
import pathlib
import shutil

import torch

import known
import safetensors_file
from atlas import Atlas
from nets import t5, tokenizer, unet

VERSION = "0.35.2"
HERE = pathlib.Path(__file__).parent
STAGES = {"base": 64, "sr256": 256, "sr1024": 1024}
FAST = "base-fast"
REFERENCE_PROMPTS = [
    "a red ball on green grass", "three yellow stars above a blue house in the snow at night", "",
    "  A Spotted   TOADSTOOL,\tqxjw: ünï-çødé \u8349\u5730 \U0001f534!",
    "a tiny white house between a turquoise ring and a shiny metal torus " * 4]


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def scheduler_config():
    return {
        "_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": VERSION,
        "algorithm_type": "dpmsolver++", "beta_end": .02, "beta_schedule": "squaredcos_cap_v2",
        "beta_start": .0001, "dynamic_thresholding_ratio": .995, "euler_at_final": False,
        "final_sigmas_type": "zero", "lower_order_final": True, "num_train_timesteps": 1000,
        "prediction_type": "sample", "sample_max_value": 1.0, "solver_order": 2, "solver_type": "midpoint",
        "steps_offset": 0, "thresholding": True, "timestep_spacing": "linspace", "trained_betas": None,
        "use_karras_sigmas": False, "variance_type": None,
    }


# A few-step network knows only the timesteps that it was distilled on: trailing ones, from pure noise.
def fast_scheduler_config():
    return {
        "_class_name": "DDIMScheduler", "_diffusers_version": VERSION, "beta_end": .02,
        "beta_schedule": "squaredcos_cap_v2", "beta_start": .0001, "clip_sample": False,
        "clip_sample_range": 1.0, "dynamic_thresholding_ratio": .995, "num_train_timesteps": 1000,
        "prediction_type": "sample", "rescale_betas_zero_snr": False, "sample_max_value": 1.0,
        "set_alpha_to_one": True, "steps_offset": 0, "thresholding": True,
        "timestep_spacing": "trailing", "trained_betas": None,
    }


def noising_config():
    return {
        "_class_name": "DDPMScheduler", "_diffusers_version": VERSION, "beta_end": .02,
        "beta_schedule": "squaredcos_cap_v2", "beta_start": .0001, "clip_sample": True,
        "clip_sample_range": 1.0, "num_train_timesteps": 1000, "prediction_type": "sample",
        "thresholding": False, "trained_betas": None, "variance_type": "fixed_small",
    }


def model_index(first, text, scheduler):
    def part(library, name):
        return [library, name] if library else [None, None]
    text = "transformers" if text else None
    index = {
        "_class_name": "IFPipeline" if first else "IFSuperResolutionPipeline", "_diffusers_version": VERSION,
        "feature_extractor": [None, None], "requires_safety_checker": False, "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": part(text, "T5EncoderModel"), "tokenizer": part(text, "T5Tokenizer"),
        "unet": ["diffusers", "UNet2DConditionModel"], "watermarker": [None, None],
    }
    if not first:
        index["image_noising_scheduler"] = ["diffusers", "DDPMScheduler"]
    return index


def half(state):
    return {name: tensor.half() for name, tensor in state.items()}


def export_text(runs, folder):
    saved = torch.load(runs / "text" / "text.pt", map_location="cpu")
    write_json(folder / "text_encoder" / "config.json", saved["config"])
    safetensors_file.save(folder / "text_encoder" / "model.safetensors", half(saved["model"]))
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    shutil.copy(runs / "text" / "spiece.model", folder / "tokenizer" / "spiece.model")
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(folder / "tokenizer" / "special_tokens_map.json",
               dict(additional_special_tokens=[], **special))
    write_json(folder / "tokenizer" / "tokenizer_config.json", dict(
        additional_special_tokens=[], clean_up_tokenization_spaces=True, extra_ids=0,
        model_max_length=tokenizer.LENGTH, sp_model_kwargs={}, tokenizer_class="T5Tokenizer", **special))


def stage_net(runs, name, untrained):
    path = runs / name / "state.pt"
    if path.exists():
        state = torch.load(path, map_location="cpu")
        return state["config"], state["ema"]
    if not untrained:
        raise SystemExit("no run %s" % path)
    size = STAGES[name]
    config = unet.config(**json.loads((HERE / "config" / (name + ".json")).read_text()), sample_size=size,
                         in_channels=3 if size == 64 else 6)
    torch.manual_seed(3)
    net = unet.UNet(config)
    torch.nn.init.normal_(net.conv_out.weight, std=.02)
    return config, net.state_dict()


def export_stage(runs, models, name, untrained):
    folder, first, text = models / name, name in ("base", FAST), name == "base"
    config, state = stage_net(runs, name, untrained)
    scheduler = fast_scheduler_config() if name == FAST else scheduler_config()
    write_json(folder / "model_index.json", model_index(first, text, scheduler))
    write_json(folder / "unet" / "config.json", config)
    safetensors_file.save(folder / "unet" / "diffusion_pytorch_model.safetensors", half(state))
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    if text:
        export_text(runs, folder)
    if not first:
        write_json(folder / "image_noising_scheduler" / "scheduler_config.json", noising_config())


def export_cascade(models, fast):
    source = HERE / "config" / "cascade" / "cascade.json"
    if fast:
        shutil.copy(source, models)
        return
    cascade = json.loads(source.read_text())
    cascade.pop("presets", None)
    write_json(models / "cascade.json", cascade)


def load_unet(folder):
    net = unet.UNet(json.loads((folder / "unet" / "config.json").read_text()))
    weights = safetensors_file.load(folder / "unet" / "diffusion_pytorch_model.safetensors")
    net.load_state_dict({k: v.float() for k, v in weights.items()})
    return net.eval()


def load_text(folder):
    encoder = t5.T5Encoder(json.loads((folder / "text_encoder" / "config.json").read_text()))
    weights = safetensors_file.load(folder / "text_encoder" / "model.safetensors")
    encoder.load_state_dict({k: v.float() for k, v in weights.items()})
    length = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())["model_max_length"]
    return encoder.eval(), tokenizer.Tokenizer(folder / "tokenizer" / "spiece.model", length)


@torch.no_grad()
def write_reference(models, folder):
    folder.mkdir(parents=True, exist_ok=True)
    encoder, tok = load_text(models / "base")
    ids, mask = tok.encode(REFERENCE_PROMPTS)
    hidden = encoder(ids, mask)
    coded = [torch.tensor(list(p.encode())) for p in REFERENCE_PROMPTS]
    safetensors_file.save(folder / "text.safetensors", {
        "prompts": torch.nn.utils.rnn.pad_sequence(coded, True).long(), "input_ids": ids,
        "attention_mask": mask, "last_hidden_state": hidden})
    generator = torch.Generator().manual_seed(7)
    for name in list(STAGES) + [FAST] * (models / FAST).exists():
        net = load_unet(models / name)
        channels, timestep = net.config["in_channels"], torch.tensor([900, 250])
        sample = torch.randn(2, channels, 64, 64, generator=generator)
        tensors = {"sample": sample, "timestep": timestep, "encoder_hidden_states": hidden[:2]}
        labels = None
        if channels == 6:
            labels = tensors["class_labels"] = torch.tensor([5, 30])
        tensors["out"] = net(sample, timestep, hidden[:2], labels)
        safetensors_file.save(folder / (name + ".safetensors"), tensors)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("runs", type=pathlib.Path)
    args.add_argument("models", type=pathlib.Path)
    args.add_argument("--reference", type=pathlib.Path, default=None)
    args.add_argument("--atlas", type=pathlib.Path, default=None, help="folder of atlas.build")
    args.add_argument("--waves", type=int, nargs="*", help="of the vocabulary that the model knows; all without it")
    args.add_argument("--untrained", action="store_true")
    opt = args.parse_args()
    for name in STAGES:
        export_stage(opt.runs, opt.models, name, opt.untrained)
    fast = (opt.runs / FAST / "state.pt").exists()
    if fast:
        export_stage(opt.runs, opt.models, FAST, False)
    export_cascade(opt.models, fast)
    if opt.atlas:
        known.write(opt.models / "vocabulary.json", Atlas(opt.atlas, sides=()), opt.waves)
    if opt.reference:
        write_reference(opt.models, opt.reference)
    total = sum(f.stat().st_size for f in opt.models.rglob("*") if f.is_file())
    print("exported to %s, %.1f MB" % (opt.models, total / 1e6))


if __name__ == "__main__":
    main()

"""`imagend generate` on an engine whose pictures cost nothing: options, files, what it says."""
import os
import subprocess
import tempfile

from harness import PROGRAM, is_png, main


def generate(*args):
    done = subprocess.run([PROGRAM, "generate", *args], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def prompts_file(folder, data):
    path = os.path.join(folder, "prompts.txt")
    with open(path, "wb") as f:
        f.write(data)
    return path


def read(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def test_one_picture():
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "a.png")
        status, text = generate("a red sphere", "--size", "64", "--seed", "3", "-o", out)
        assert status == 0 and "seed 3" in text, text
        assert is_png(read(out), 64)


def test_several_pictures_are_numbered():
    with tempfile.TemporaryDirectory() as folder:
        status, text = generate("x", "--size", "64", "--n", "3", "-o", folder + "/a.b/../p.png")
        assert status == 1 and "cannot write" in text, text
        status, _ = generate("x", "--size", "64", "--n", "3", "-o", folder + "/p.png")
        assert status == 0 and sorted(os.listdir(folder)) == ["p-1.png", "p-2.png", "p-3.png"]


def test_a_line_is_drawn_as_the_prompt_alone_with_its_seed():
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"prompt {i}" for i in range(9)]
        lines[4] = ""
        path = prompts_file(folder, "\n".join(lines).encode() + b"\r\n")
        status, text = generate("--prompts", path, "--size", "64", "--seed", "18446744073709551613",
                                "-o", folder + "/p.png")
        assert status == 0, text
        for i, seed in ((0, 2**64 - 3), (2, 2**64 - 1), (4, 1), (8, 5)):
            alone = folder + "/alone.png"
            assert generate(lines[i], "--size", "64", "--seed", str(seed), "-o", alone)[0] == 0
            assert read(alone) == read(folder, f"p-{i + 1}.png"), i
        assert not os.path.exists(folder + "/p-10.png")


def test_one_line_is_numbered_too():
    with tempfile.TemporaryDirectory() as folder:
        path = prompts_file(folder, b"x")
        assert generate("--prompts", path, "--size", "64", "-o", folder + "/p.png")[0] == 0
        assert sorted(os.listdir(folder)) == ["p-1.png", "prompts.txt"]


def test_a_failed_line_leaves_the_others():
    with tempfile.TemporaryDirectory() as folder:
        path = prompts_file(folder, b"a\n[fail]\nb\n")
        status, text = generate("--prompts", path, "--size", "64", "-o", folder + "/p.png")
        assert status == 1 and "not a number" in text, text
        assert sorted(os.listdir(folder)) == ["p-1.png", "p-3.png", "prompts.txt"]


def test_bad_files_of_prompts_are_refused_before_drawing():
    with tempfile.TemporaryDirectory() as folder:
        out = folder + "/p.png"
        for data, says in ((b"", "0 lines"), (b"a\nb\0c\n", "NUL"), (b"\n" * 100001, "100001 lines"),
                           (b"a\n" + b"x" * 32001 + b"\n", "line 2")):
            path = prompts_file(folder, data)
            status, text = generate("--prompts", path, "--size", "64", "-o", out)
            assert status in (1, 2) and says in text and "prompts.txt" in text, (data[:9], text)
        status, text = generate("--prompts", folder + "/none.txt", "-o", out)
        assert status == 2 and "none.txt" in text, text
        status, text = generate("--prompts", folder, "-o", out)
        assert status == 2, text
        assert os.listdir(folder) == ["prompts.txt"]


def test_prompts_exclude_a_prompt_and_n():
    with tempfile.TemporaryDirectory() as folder:
        path = prompts_file(folder, b"a\n")
        for more, says in ((["x"], "without a prompt"), (["--n", "2"], "without --n")):
            status, text = generate("--prompts", path, *more, "-o", folder + "/p.png")
            assert status == 2 and says in text, text
        assert os.listdir(folder) == ["prompts.txt"]


def test_a_preset_by_name():
    with tempfile.TemporaryDirectory() as folder:
        out = folder + "/p.png"
        status, text = generate("x", "--size", "64", "--preset", "slow", "-o", out)
        assert status == 1 and 'no preset "slow"' in text, text
        assert generate("x", "--size", "64", "--preset", "fast", "-o", out)[0] == 0
        assert is_png(read(out), 64)


def test_wrong_usage_is_named():
    for args, says in ((["x", "--n", "0"], '--n cannot be "0"'), (["x", "--size", "a"], "--size"),
                       (["x", "--nonsense"], "--nonsense"), ([], "a prompt is missing"),
                       (["x", "y"], "one prompt"), (["x", "--seed", "-1"], "--seed"),
                       (["x", "--steps", "1,2,3,4"], "--steps")):
        status, text = generate(*args)
        assert status == 2 and says in text, (args, text)


if __name__ == "__main__":
    main(globals())

"""`imagend generate` on the fake engine: options, files, output."""
import os
import resource
import stat
import subprocess
import tempfile

from harness import PROGRAM, is_png, main


def generate(*args, **more):
    done = subprocess.run([PROGRAM, "generate", *args], capture_output=True, text=True, timeout=60,
                          **more)
    return done.returncode, done.stdout + done.stderr


def refused(*args):
    """What is said of arguments that are refused before a model is loaded."""
    status, text = generate(*args, env={**os.environ, "FAKE_OPEN_FAILS": "1"})
    assert status in (1, 2) and "no usable Vulkan device" not in text, (args, status, text)
    assert text.startswith("imagend: ") and text.count("\n") == 1, text
    return text


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
        assert status == 1 and "a.b/..\" does not exist" in text, text
        status, _ = generate("x", "--size", "64", "--n", "3", "-o", folder + "/p.png")
        assert status == 0 and sorted(os.listdir(folder)) == ["p-1.png", "p-2.png", "p-3.png"]


def test_each_of_several_has_a_number_of_its_own():
    with tempfile.TemporaryDirectory() as folder:
        common = ("x", "--size", "64", "--seed", "5")
        assert generate(*common, "--n", "3", "-o", folder + "/p.png")[0] == 0
        images = [read(folder, f"p-{i}.png") for i in (1, 2, 3)]
        assert len(set(images)) == 3
        for i, image in enumerate(images):
            assert generate(*common, "--picture", str(i), "-o", folder + "/one.png")[0] == 0
            assert read(folder, "one.png") == image, i
        assert generate(*common, "--picture", "1", "--n", "2", "-o", folder + "/q.png")[0] == 0
        assert [read(folder, f"q-{i}.png") for i in (1, 2)] == images[1:]


def test_names_without_an_extension():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/a.d")
        status, text = generate("x", "--size", "64", "--n", "2", "-o", folder + "/a.d/p")
        assert status == 0 and sorted(os.listdir(folder + "/a.d")) == ["p-1", "p-2"], text
        assert os.listdir(folder) == ["a.d"] and is_png(read(folder, "a.d/p-1"), 64)


def test_quiet_says_nothing_but_errors():
    with tempfile.TemporaryDirectory() as folder:
        long = "word " * 100  # which otherwise is said to be cut
        assert "tokens" in generate(long, "--size", "64", "-o", folder + "/p.png")[1]
        assert generate(long, "--size", "64", "--quiet", "-o", folder + "/p.png") == (0, "")
        status, text = generate("[fail]", "--size", "64", "--quiet", "-o", folder + "/p.png")
        assert status == 1 and text.startswith("imagend: ") and text.count("\n") == 1, text


def test_a_line_is_drawn_as_the_prompt_alone_with_its_seed():
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"prompt {i}" for i in range(9)]
        lines[3], lines[5] = "", " \t"
        path = prompts_file(folder, "\n".join(lines).encode() + b"\r\n")
        status, text = generate("--prompts", path, "--size", "64", "--seed", "18446744073709551613",
                                "-o", folder + "/p.png")
        assert status == 0, text
        for i, seed in ((0, 2**64 - 3), (2, 2**64 - 1), (4, 1), (8, 5)):
            alone = folder + "/alone.png"
            assert generate(lines[i], "--size", "64", "--seed", str(seed), "-o", alone)[0] == 0
            assert read(alone) == read(folder, f"p-{i + 1}.png"), i
        # Blank lines are skipped, and count.
        assert sorted(os.listdir(folder)) == ["alone.png", "p-1.png", "p-2.png", "p-3.png",
                                              "p-5.png", "p-7.png", "p-8.png", "p-9.png",
                                              "prompts.txt"]


def test_a_file_of_prompts_may_begin_with_a_mark():
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("bom", b"\xef\xbb\xbfa cat\r\n\r\n"), ("plain", b"a cat")):
            path = prompts_file(folder, data)
            assert generate("--prompts", path, "--size", "64", "--seed", "1", "-o",
                            f"{folder}/{name}.png")[0] == 0
        assert read(folder, "bom-1.png") == read(folder, "plain-1.png")
        status, text = generate("--prompts", "-", "--size", "64", "--seed", "1", "-o",
                                folder + "/stdin.png", input="a cat\n")
        assert status == 0 and read(folder, "stdin-1.png") == read(folder, "plain-1.png"), text


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
                           (b"a\n" + b"x" * 32001 + b"\n", "line 2"), (b"\n \n", "only blank lines"),
                           (b"\xef\xbb\xbf", "0 lines"), (b"\xff\xfea\0", "UTF-16")):
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
        for more, says in ((["x"], "with a prompt"), (["--n", "2"], "with --n")):
            status, text = generate("--prompts", path, *more, "-o", folder + "/p.png")
            assert status == 2 and says in text, text
        assert os.listdir(folder) == ["prompts.txt"]


def test_a_preset_by_name():
    with tempfile.TemporaryDirectory() as folder:
        out = folder + "/p.png"
        status, text = generate("x", "--size", "64", "--preset", "slow", "-o", out)
        assert status == 2 and 'no preset "slow"' in text, text
        assert generate("x", "--size", "64", "--preset", "fast", "-o", out)[0] == 0
        assert is_png(read(out), 64)


def test_wrong_usage_is_named():
    stages = "for each stage, at most 3 numbers separated by commas"
    for args, says in (
            (["x", "--n", "0"], '--n cannot be "0"; use 1 to 1000'),
            (["x", "--n", "1001"], "use 1 to 1000"),
            (["x", "--size", "a"], '--size cannot be "a"; use a number of pixels'),
            (["x", "--size", "1025"], "larger than 1024x1024"),
            (["x", "--nonsense"], "unknown option --nonsense"),
            (["x", "--stpes", "3"], "did you mean --steps?"),
            (["x", "--steps"], "option --steps needs a value"),
            ([], "a prompt is missing"),
            (["a", "red", "ball"], 'unexpected argument "red"; a prompt of several words needs quotes'),
            (["x", "--seed", "18446744073709551616"], "--seed cannot be"),
            (["x", "--seed", "+1"], "--seed"), (["x", "--seed", " 1"], "--seed"),
            (["x", "--seed", ""], "--seed"), (["x", "--seed", "1x"], "--seed"),
            (["x", "--seed", "-1"], '--seed cannot be "-1"; use 0 to 18446744073709551615'),
            (["x", "--steps", "1,2,3,4"], "1 to 1000 " + stages),
            (["x", "--steps", "0"], '--steps cannot be "0"; use 1 to 1000 ' + stages),
            (["x", "--steps", "20,0"], '--steps cannot be "20,0"'),
            (["x", "--steps", "1001"], "--steps"), (["x", "--steps", "2.5"], "--steps"),
            (["x", "--steps", "-3"], "--steps"), (["x", "--steps", "nan"], "--steps"),
            (["x", "--steps", ""], "--steps"), (["x", "--steps", "5,"], "--steps"),
            (["x", "--guidance", "-1"], "1 to 100 for each stage, or 0 for no guidance, at most 3 numbers"),
            (["x", "--guidance", "0.5"], '--guidance cannot be "0.5"'),
            (["x", "--guidance", "101"], "--guidance"), (["x", "--guidance", "nan"], "--guidance"),
            (["x", "--guidance", "inf"], "--guidance"), (["x", "--guidance", "7,,5"], "--guidance"),
            (["x", "--guidance", "7 5"], "--guidance"), (["x", "--guidance", "1e400"], "--guidance"),
            (["x", "--noise-level", "1000"], "0 to 999 for each super-resolution stage"),
            (["x", "--noise-level", "-1"], "--noise-level"),
            (["x", "--noise-level", "1,2,3"], "--noise-level"),
            (["x", "--slots", "257"], "use 1 to 256"),
            (["x", "--dtype", "f64"], '--dtype cannot be "f64"; use f32 or f16'),
            (["x", "--weights", "q5"], '--weights cannot be "q5"; use f32, f16, bf16, q8 or q4'),
            (["x", "--tune", "often"], '--tune cannot be "often"; use auto, on or off'),
            (["x", "--memory-limit", "lots"], "a number of bytes, such as 800M or 12G"),
            (["x", "--sampler", "none"], 'sampler "none"'),
            (["x", "--preset", "slow"], 'preset "slow"'),
            (["x", "--model", "missing"], "missing")):
        text = refused(*args)
        assert says in text, (args, text)


def test_no_more_values_than_stages():
    for args, says in (
            (["--size", "64", "--steps", "2,2"], '"steps" has a value for stage 2, but an image of this size '
             "uses only 1 stage"),
            (["--size", "64", "--guidance", "7,0"], '"guidance_scale" has a value for stage 2'),
            (["--size", "256", "--guidance", "7,5,5"], "stage 3, but an image of this size uses only 2 stages"),
            (["--size", "64", "--noise-level", "10"], '"noise_level" applies to super-resolution stages'),
            (["--size", "256", "--noise-level", "10,0"], '"noise_level" has a value for stage 3')):
        text = refused("x", *args)
        assert says in text, (args, text)
    with tempfile.TemporaryDirectory() as folder:
        for args in (["--steps", "2,2,2"], ["--guidance", "0,1,7.5"], ["--noise-level", "0"],
                     ["--noise-level", "10,999"], ["--size", "256", "--noise-level", "10"]):
            status, text = generate("x", "-o", folder + "/p.png", *args)
            assert status == 0, (args, text)


def test_where_images_cannot_go_is_said_before_loading():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/dir.png")
        prompts_file(folder, b"a\n")
        for out, says in (
                ("none/p.png", 'none" does not exist; create it first'),
                ("none/deep/p.png", "does not exist"),
                ("dir.png", "dir.png/out.png"), ("dir.png/", "dir.png/out.png"), ("", "out.png"),
                ("prompts.txt/p.png", 'prompts.txt" is a file'),
                ("p.gif", "unknown extension; use .png, .jpg or .webp"),
                ("p.png.bak", "unknown extension"), ("v1.5", "unknown extension")):
            text = refused("x", "-o", os.path.join(folder, out))
            assert says in text, (out, text)
        assert "the name of the output file is empty" in refused("x", "-o", "")
        assert sorted(os.listdir(folder)) == ["dir.png", "prompts.txt"]
        if os.path.isdir("/proc/self"):
            assert "cannot write to the output folder" in refused("x", "-o", "/proc/self/p.png") or \
                "does not exist" in refused("x", "-o", "/proc/self/p.png")


def test_the_extension_is_the_format():
    magic = {"p.png": b"\x89PNG", "p.PNG": b"\x89PNG", "plain": b"\x89PNG", ".hidden": b"\x89PNG",
             "a.b/p": b"\x89PNG", "p.jpg": b"\xff\xd8\xff", "p.JPEG": b"\xff\xd8\xff",
             "p.webp": b"RIFF"}
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/a.b")
        for name, begin in magic.items():
            status, text = generate("x", "--size", "64", "-o", os.path.join(folder, name))
            assert status == 0 and read(folder, name).startswith(begin), (name, text)
        assert generate("x", "--size", "64", "--n", "2", "-o", folder + "/q.jpg")[0] == 0
        assert read(folder, "q-2.jpg").startswith(b"\xff\xd8\xff")


def make_full(path):
    """A device of its own like /dev/full: a program that replaced its output would replace the machine's device. Where
    none can be made, hardly anybody may replace one either."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        open(path, "wb").close()
    except PermissionError:  # also in a file system without devices
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink("/dev/full", path)


def test_standard_output():
    done = subprocess.run([PROGRAM, "generate", "x", "--size", "64", "--seed", "3", "-o", "-"],
                          capture_output=True, timeout=60)
    assert done.returncode == 0 and is_png(done.stdout, 64) and b"seed 3" in done.stderr
    assert not os.path.exists("-")
    assert "standard output takes one image" in refused("x", "--n", "2", "-o", "-")
    with tempfile.TemporaryDirectory() as folder:
        full = folder + "/full"
        make_full(full)
        done = subprocess.run([PROGRAM, "generate", "x", "--size", "64", "-o", full],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and f"cannot write {full}: No space left" in done.stderr
        assert stat.S_ISCHR(os.stat(full).st_mode)
    with open("/dev/full", "wb") as full:
        done = subprocess.run([PROGRAM, "generate", "x", "--size", "64", "-o", "-"], stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "cannot write standard output" in done.stderr, done.stderr


def limit(size):
    def before():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return before


def test_a_full_disk_leaves_no_half_file():
    with tempfile.TemporaryDirectory() as folder:
        out = folder + "/p.png"
        with open(out, "wb") as f:
            f.write(b"what was there")
        status, text = generate("x", "--size", "64", "-o", out, preexec_fn=limit(64))
        assert status == 1 and "cannot write" in text and "File too large" in text, text
        assert read(out) == b"what was there" and os.listdir(folder) == ["p.png"]
        # Nothing more is drawn when an image cannot be saved.
        status, text = generate("x", "--size", "64", "--n", "20", "--slots", "1", "-o",
                                folder + "/q.png", preexec_fn=limit(64))
        assert status == 1 and text.count("cannot write") == 1, text
        assert os.listdir(folder) == ["p.png"]


def test_a_file_that_is_replaced_keeps_its_place():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/real")
        target, out = folder + "/real/p.png", folder + "/link.png"
        with open(target, "wb") as f:
            f.write(b"old")
        os.chmod(target, 0o640)
        os.symlink(target, out)
        assert generate("x", "--size", "64", "-o", out)[0] == 0
        assert os.path.islink(out) and is_png(read(target), 64)
        assert os.stat(target).st_mode & 0o777 == 0o640
        old = os.umask(0o027)
        try:
            assert generate("x", "--size", "64", "-o", folder + "/new.png")[0] == 0
        finally:
            os.umask(old)
        assert os.stat(folder + "/new.png").st_mode & 0o777 == 0o640


def test_a_line_is_printed_when_its_image_is_there():
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.Popen([PROGRAM, "generate", "x", "--size", "64", "--n", "3", "--slots", "1",
                                 "-o", folder + "/p.png"], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True,
                                env={**os.environ, "FAKE_STEP_MS": "100"})
        first = done.stdout.readline()
        assert "p-1.png" in first and done.poll() is None
        assert not os.path.exists(folder + "/p-3.png")
        done.stdout.read()
        done.wait(60)


def test_help_everywhere():
    for command in ([], ["generate"], ["serve"], ["config"], ["devices"], ["inspect"]):
        texts = []
        for flag in "-h", "--help":
            done = subprocess.run([PROGRAM, *command, flag], capture_output=True, text=True,
                                  timeout=60)
            assert done.returncode == 0 and "usage: imagend" in done.stdout, (command, done)
            texts.append(done.stdout)
        assert texts[0] == texts[1]


if __name__ == "__main__":
    main(globals())

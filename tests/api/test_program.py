"""What the program says about itself: help, version, manual pages, shell completion."""
import os
import re
import subprocess
import tempfile

from harness import PROGRAM, Server, main, needs

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
VERSION = re.search(r"^  version: '([0-9.]+)',", open(os.path.join(ROOT, "meson.build")).read(), re.M)[1]


def run(*args, **more):
    return subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=60, **more)


def output(*args):
    r = run(*args)
    assert r.returncode == 0 and not r.stderr, (args, r)
    return r.stdout


def commands():
    return re.findall(r"^  (\w+) +\w", output("help"), re.M)


def options(command):
    """--NAME of a command's help, with what stands for the value."""
    return dict(re.findall(r"^  (?:-\w, )?--([\w-]+) ?(\S*)", output("help", command), re.M))


def conf_options():
    return re.findall(r"^\| `([\w-]+)` \| \S* +\|.*\|.*\|$",
                      output("config", "table").split("| metric |")[0], re.M)


def files_below(path):
    if os.path.isfile(path):
        return [path]
    return [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]


def test_help():
    assert commands() == ["generate", "upscale", "serve", "config", "devices", "inspect", "completion", "manual",
                          "help"]
    overview = output("help")
    assert overview == output("--help") == output("-h")
    assert overview.startswith(f"imagend {VERSION}")
    for command in commands():
        text = output("help", command)
        assert text.startswith(f"usage: imagend {command}"), text
        assert text == output(command, "--help") == output(command, "-h"), command
        assert all(len(line) <= 80 for line in text.splitlines()), text
    assert output("help", "serve") == output("serve", "--listen", ":1", "--help")
    assert output("help", "config") == output("config", "show", "-h")
    assert output("help", "generate") == output("generate", "a prompt", "--seed", "1", "-h")
    assert set(conf_options()) | {"help"} == set(options("serve")) and len(conf_options()) > 30


def test_version_has_one_place():
    assert output("--version") == output("-V") == f"imagend {VERSION}\n"
    with tempfile.TemporaryDirectory() as folder:
        s = Server(data=folder)
        try:
            assert s.get("/v1/capabilities").json["version"] == VERSION
            assert s.get("/openapi.json").json["info"]["version"] == VERSION
        finally:
            assert s.close() == 0
    for page in ("imagend.1", "imagend.conf.5"):
        assert f'"imagend {VERSION}"' in output("manual", page)
    with open(os.path.join(ROOT, "CHANGELOG.md")) as f:
        sections = re.findall(r"^## \[([^]]*)\](?: - (\d{4}-\d\d-\d\d))?$", f.read(), re.M)
    assert sections[0] == ("Unreleased", "") and sections[1][0] == VERSION and sections[1][1], sections
    for top in ("engine", "server", "deploy", "config", "Dockerfile", "run"):
        for path in files_below(os.path.join(ROOT, top)):
            with open(path, errors="replace") as f:
                assert VERSION not in f.read(), f"{path} repeats the version"


def test_wrong_usage_is_one_sentence():
    for args, says in (((), "usage:"), (("genrate",), 'did you mean "generate"?'),
                       (("xyzzy",), '"imagend help" lists'), (("",), "usage:"),
                       (("help", "srve"), 'did you mean "serve"?'), (("help", "a", "b"), "one command"),
                       (("generate", "x", "--guidence", "3"), "--guidence; did you mean --guidance?"),
                       (("generate", "x", "--zzzzzzzz"), "--zzzzzzzz; see imagend generate --help"),
                       (("generate", "x", "--s", "3"), "--s is ambiguous; use --strength, --size, --seed, "),
                       (("upscale", "x", "--n", "2"), "ambiguous; use --noise-level or --no-provenance\n"),
                       (("generate", "x", "-z"), "unknown option -z"),
                       (("generate", "x", "--seed"), "--seed needs a value"),
                       (("generate", "x", "-o"), "-o needs a value"),
                       (("generate", "--quiet=1", "x"), "--quiet takes no value"),
                       (("generate", "--help=1", "x"), "--help takes no value"),
                       (("inspect", "a", "b"), '"b"'), (("inspect", "--variants", "b"), "--variant?"),
                       (("devices", "x"), '"x"'), (("devices", "--x"), "--x"),
                       (("config",), "check, show"), (("config", "shw"), '"shw"'),
                       (("config", "key"), "NAME"), (("serve", "--nope"), '"--nope"; imagend serve --help'),
                       (("serve", "--queue-limt=3"), '"--queue-limt"; did you mean "--queue-limit"?'),
                       (("config", "check", "--lisen", ":1"), 'mean "--listen"?'),
                       (("manual",), "imagend.1"), (("manual", "imagend.2"), "imagend.1"),
                       (("completion", "tcsh"), "bash, zsh or fish")):
        r = run(*args)
        assert r.returncode == 2 and says in r.stderr and not r.stdout, (args, r)
        assert "usage:" in says or r.stderr.count("\n") == 1, (args, r)


def test_a_full_disk_is_an_error():
    for args in (("--version",), ("help",), ("manual", "imagend.1"), ("config", "file")):
        with open("/dev/full", "w") as full:
            r = subprocess.run([PROGRAM, *args], stdout=full, stderr=subprocess.PIPE, text=True)
        assert r.returncode == 1 and "standard output" in r.stderr, (args, r)


def rendered(page):
    """The page as a terminal shows it, and what the formatter complains about."""
    r = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-P-cbou", "-rLL=300n"], text=True,
                       input=output("manual", page), capture_output=True, timeout=60)
    assert r.returncode == 0 and not r.stderr, r.stderr
    return r.stdout


def test_manual_pages():
    needs("groff")
    page = rendered("imagend.1")
    for command in commands():
        assert re.search(rf"^   {command}$", page, re.M), command
        if command not in ("serve", "config"):
            for name, value in options(command).items():
                assert name == "help" or f"--{name} {value}".strip() in page, (command, name)
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES"):
        assert re.search(f"^{heading}$", page, re.M), heading
    page = rendered("imagend.conf.5")
    values = options("serve")
    for name in conf_options():
        assert name == "config" or f"{name} = {values[name]}\n" in page, name
        variable = "IMAGEND_" + name.replace("-", "_").upper()
        assert name == "config" or f"Environment: {variable}\n" in page, name
    limit = page.split("queue-limit = N")[1].split("Environment")[0]
    assert "Default: 256." in limit and "Reread on SIGHUP" in limit, limit


def in_shell(shell, folder, script):
    r = subprocess.run([shell, *{"zsh": ["-f"], "fish": ["-N"]}.get(shell, ["--norc"]), "-c", script],
                       cwd=folder, capture_output=True, text=True, timeout=60,
                       env={**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder})
    assert r.returncode == 0 and not r.stderr, (shell, r)
    return r.stdout.split()


def bash_completes(folder, *words):
    script = (f"source ./imagend.bash; COMP_WORDS=(imagend {' '.join(words)}); "
              'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _imagend; printf "%s\\n" "${COMPREPLY[@]}"')
    return in_shell("bash", folder, script)


def fish_completes(folder, *words):
    last = words[-1].strip("'")
    line = " ".join(["imagend", *words[:-1], last])
    return in_shell("fish", folder,
                    f"source ./imagend.fish; complete -C '{line}' | string split -f1 \\t; true")


ZSH_INNER = """
PROMPT=
autoload -U compinit
compinit -C -d ./dump
source ./_imagend
bindkey '^I' complete-word
zstyle ':completion:*' insert-tab false
finish() { print -r -- '<end>'; exit }
comppostfuncs=(finish)
compadd() {
    if [[ " ${@[1,(i)(-|--)]} " == *\\ -[OAD]\\ * ]]; then
        builtin compadd "$@"
        return
    fi
    local -a found
    builtin compadd -O found "$@"
    print -rl -- "<"$^found">"
    builtin compadd "$@"
}
print -r -- '<'ready'>'
"""


def zsh_completes(folder, *words):
    """What zsh's completion system is given to choose from, in a terminal of its own."""
    with open(os.path.join(folder, "inner"), "w") as f:
        f.write(ZSH_INNER)
    line = " ".join(["imagend", *words[:-1], words[-1].strip("'")])
    script = f"""
        zmodload zsh/zpty
        zpty z zsh -f -i
        zpty -w z source ./inner
        zpty -r z out '*<ready>*'
        zpty -w -n z $'{line}\\t'
        zpty -r z out '*<end>*'
        print -r -- $out
    """
    found = re.findall("<(.*?)>", " ".join(in_shell("zsh", folder, script)))
    return [word for word in dict.fromkeys(found) if word != "end"]


def completes(shell, folder, *words):
    return {"bash": bash_completes, "fish": fish_completes, "zsh": zsh_completes}[shell](folder, *words)


def check_shell(shell):
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "_imagend" if shell == "zsh" else "imagend." + shell), "w") as f:
            f.write(output("completion", shell))
        os.mkdir(os.path.join(folder, "a model"))
        with open(os.path.join(folder, "a file"), "w"):
            pass
        assert set(commands()) <= set(completes(shell, folder, "''")), shell
        assert completes(shell, folder, "gen") == ["generate"], shell
        for command in commands():
            names = {"--" + name for name in options(command)}
            assert names == set(completes(shell, folder, command, "--")), (shell, command)
        assert completes(shell, folder, "generate", "--guid") == ["--guidance"]
        assert set(completes(shell, folder, "generate", "--dtype", "''")) == {"f32", "f16"}
        assert set(completes(shell, folder, "serve", "--store", "''")) == {"sqlite", "memory", "postgres"}
        assert {"check", "show", "key"} <= set(completes(shell, folder, "config", "''"))
        assert set(commands()) <= set(completes(shell, folder, "help", "''"))


def test_completion_in_bash():
    check_shell("bash")
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "imagend.bash"), "w") as f:
            f.write(output("completion", "bash"))
        os.mkdir(os.path.join(folder, "folder"))
        with open(os.path.join(folder, "file"), "w"):
            pass
        assert bash_completes(folder, "generate", "--model", "f") == ["folder"]
        assert bash_completes(folder, "generate", "--model", "=", "f") == ["folder"]
        assert bash_completes(folder, "generate", "--model", "=") == ["folder"]
        assert set(bash_completes(folder, "generate", "-o", "f")) == {"file", "folder"}
        assert bash_completes(folder, "generate", "--seed", "f") == []
        assert bash_completes(folder, "inspect", "f") == ["folder"]


def test_completion_in_zsh():
    needs("zsh")
    check_shell("zsh")


def test_completion_in_fish():
    needs("fish")
    check_shell("fish")


main(globals())

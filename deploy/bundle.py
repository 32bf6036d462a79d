#!/usr/bin/env python3
"""Packs what bundle.sh has built: bundle.py ROOT BUILD [--programs].

The bundle contains the program and the test and benchmark programs with every library that they need beyond
the C library and the Vulkan loader, each library's license, the default cascade, the tests' data and bench/gpu.sh.
--programs leaves out what a source tree contains, for a machine that has one (bench/gpu.py finds it there).
Fails if a program would load anything else from outside. Standard library only.
"""
import glob
import json
import os
import re
import shutil
import subprocess
import sys

# The C library's own files: these must come from the same build as the system's loader.
OF_LIBC = {"ld-linux-x86-64", "libc", "libm", "libpthread", "libdl", "librt", "libresolv", "libutil",
           "libnss_dns", "libnss_files"}
LOADER = "libvulkan.so.1"
# Used on machines without a Vulkan loader; NVIDIA's driver needs the others as well.
LOADER_TOO = [LOADER, "libX11.so.6", "libXext.so.6", "libEGL.so.1", "libGLdispatch.so.0"]
SUITES = ("ops", "golden", "engine")
BENCHMARKS = ("bench_ops", "bench_maps", "bench_cascade", "bench_alone", "bench_unet")
OTHERS = ("imagend", "tests/drivers/draw", "tests/drivers/kernels", "tests/full/compare_paths")
REFERENCE = {"64": ["1", "2"], "256": ["1", "2"], "1024": ["1"]}  # seeds of each size
LIMIT = 60_000_000
COMMON = "/usr/share/common-licenses"


def die(why):
    sys.exit(f"bundle: {why}")


def output(*args):
    r = subprocess.run(args, capture_output=True, text=True)
    if r.returncode:
        die(f"{' '.join(args)}: {r.stdout}{r.stderr}")
    return r.stdout


# ---- libraries ------------------------------------------------------------------------------------------------------

def loaded(path):
    """The libraries that the loader finds for a program or library: name to path."""
    found = {}
    for line in output("ldd", path).splitlines():
        m = re.match(r"\s*(\S+) => (.*?)(?: \(0x[0-9a-f]+\))?$", line)
        if m and not m[2].startswith("/"):
            die(f"{path} needs {m[1]}, which is not installed")
        if m:
            found[m[1]] = m[2]
    return found


def is_of_system(name):
    return name.split(".so")[0] in OF_LIBC or name == LOADER


def libc_version(paths):
    """The newest version of the C library that the files refer to."""
    versions = set()
    for path in paths:
        versions |= {tuple(map(int, v.split("."))) for v in
                     re.findall(r"GLIBC_(\d+(?:\.\d+)+)", output("objdump", "-T", path))}
    return ".".join(map(str, max(versions)))


def copy(path, to):
    os.makedirs(os.path.dirname(to), exist_ok=True)
    shutil.copy(os.path.realpath(path), to)
    os.chmod(to, 0o755)


def strip(path):
    subprocess.run(["strip", "--strip-unneeded", path], check=True)


def package_of(path):
    """The Debian package of an installed file, and its version; None elsewhere."""
    for name in (path, path.removeprefix("/usr"), "/usr" + path):
        r = subprocess.run(["dpkg-query", "-S", name], capture_output=True, text=True)
        if r.returncode == 0:
            name = r.stdout.split(": ")[0].split(",")[0]
            return name, output("dpkg-query", "-W", "-f", "${source:Package} ${source:Version}", name)
    return None


def copy_licenses(libraries, folder):
    """Each package's copyright file, the licenses that it refers to, and the sources by name and version."""
    packages, common = {}, set()
    for path in libraries:
        found = package_of(path)
        if not found:
            die(f"{path} belongs to no Debian package, so its license is unknown; build the bundle on Debian")
        packages.setdefault(found, []).append(os.path.basename(path))
    os.makedirs(folder)
    table = ["| library | Debian source package |", "|---|---|"]
    for (package, source), names in sorted(packages.items()):
        name = package.split(":")[0]
        with open(f"/usr/share/doc/{name}/copyright", errors="replace") as f:
            text = f.read()
        with open(f"{folder}/{name}", "w") as f:
            f.write(text)
        common |= set(re.findall(COMMON + r"/([A-Za-z]+(?:-\d(?:\.\d)?)?)", text))
        table.append(f"| {', '.join(sorted(names))} | {source} |")
    for name in sorted(common):
        if os.path.exists(f"{COMMON}/{name}"):
            shutil.copy(os.path.realpath(f"{COMMON}/{name}"), f"{folder}/{name}")
    with open(f"{folder}/README.md", "w") as f:
        f.write("# Licenses of the libraries in this bundle\n\nThe libraries in lib are unchanged copies of Debian's. "
                "This folder contains each package's copyright\nfile and the licenses that these refer to. "
                "The source code is in Debian's archive\n(https://snapshot.debian.org) under the names and "
                "versions below. A library can be replaced by another\nbuild of the same interface.\n\n"
                + "\n".join(table) + "\n")


# ---- tests ----------------------------------------------------------------------------------------------------------

def tests_of(root, tree):
    """The tests of the suites that need a device, with commands relative to the bundle."""
    moved = {root + "/tests/": "tests/", root + "/models/": "share/imagend/models/"}
    found = []
    for t in json.loads(output("meson", "introspect", "--tests", tree)):
        suite = t["suite"][0].split(":")[-1]
        # A script is not carried: it may need more than the bundle has.
        if suite not in SUITES or not t["cmd"][0].startswith(tree + "/"):
            continue
        command = t["cmd"]
        for old, new in moved.items():
            command = [a.replace(old, new) for a in command]
        found.append({"name": t["name"], "suite": suite, "program": t["cmd"][0], "timeout": t["timeout"],
                      "command": ["bin/" + os.path.basename(t["cmd"][0])] + command[1:]})
    return found


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


# ---- the bundle -----------------------------------------------------------------------------------------------------

def ignore_images(folder, names):
    return [n for n in names if n.endswith(".jpg") or n == "__pycache__"]


def copy_data(root, bundle):
    shutil.copytree(f"{root}/models/default", f"{bundle}/share/imagend/models/default", ignore=ignore_images)
    for name in ("golden", "data", "full"):
        shutil.copytree(f"{root}/tests/{name}", f"{bundle}/tests/{name}", ignore=ignore_images)


def copy_small(root, bundle):
    shutil.copytree(f"{root}/tests/bench/gpu", f"{bundle}/bench", ignore=ignore_images)
    shutil.copytree(f"{root}/training/nets", f"{bundle}/training/nets", ignore=ignore_images)
    for name in ("LICENSE", "NOTICE", "CHANGELOG.md", "deploy/bundle.md"):
        shutil.copy(f"{root}/{name}", bundle)
    os.rename(f"{bundle}/bundle.md", f"{bundle}/README.md")


def write_start(root, bundle, libraries):
    """bin/start, with the number of the bundle's C++ library."""
    cxx = next(p for p in libraries if os.path.basename(p).startswith("libstdc++.so.6"))
    number = os.path.realpath(cxx).rsplit(".", 1)[1]
    with open(f"{root}/deploy/start.sh") as f:
        text = f.read().replace("@STDCXX@", number)
    os.makedirs(f"{bundle}/bin", exist_ok=True)
    with open(f"{bundle}/bin/start", "w") as f:
        f.write(text)
    os.chmod(f"{bundle}/bin/start", 0o755)


def draw_reference(bundle, model):
    """What lavapipe draws with the default cascade, stage by stage, for bench/gpu.py; returns its name."""
    drivers = sorted(glob.glob("/usr/share/vulkan/icd.d/lvp_icd*.json"))
    if not drivers:
        print("bundle: lavapipe is not installed; without reference images", file=sys.stderr)
        return None
    env = {**os.environ, "VK_DRIVER_FILES": drivers[0], "VK_ICD_FILENAMES": drivers[0], "DRAW_STEPS": "0",
           "DRAW_DTYPE": "f32"}
    for size, seeds in REFERENCE.items():
        folder = f"{bundle}/tests/reference/{size}"
        os.makedirs(folder)
        r = subprocess.run([f"{bundle}/bin/draw", model, size, folder,
                            "a red sphere on a wooden table", *seeds], env=env, capture_output=True, text=True)
        if r.returncode:
            die(f"the reference images: {r.stdout}{r.stderr}")
    r = subprocess.run([f"{bundle}/bin/imagend", "devices"], env=env, capture_output=True, text=True)
    return r.stdout.splitlines()[0]


def check_outside(programs, bundle):
    for path in programs:
        for name, where in loaded(path).items():
            if not is_of_system(name) and not os.path.realpath(where).startswith(os.path.realpath(bundle) + "/lib/"):
                die(f"{path} would load {where}")


def check_paths(root, bundle):
    """No file of ours contains the folder that it was built in."""
    for folder, _, names in os.walk(bundle):
        for name in names:
            with open(os.path.join(folder, name), "rb") as f:
                if root.encode() + b"/" in f.read():
                    die(f"{folder}/{name} contains the path {root}")


def facts(root, tree, files, version):
    git = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True,
                         text=True)
    return {"version": version, "commit": git.stdout.strip() or "unknown", "glibc": libc_version(files),
            "matrix_units": "spirv_matmul_matrix" in open(f"{tree}/shaders/spirv.h").read()}


def pack(build, bundle):
    """The tarball, with the same bytes for the same files. The large dictionary finds the shaders that programs have
    in common."""
    tar = ["tar", "-C", build, "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-cf", "-",
           os.path.basename(bundle)]
    path = f"{bundle}.tar.xz"
    with open(path, "wb") as f:
        packer = ["xz", "-T1", "--lzma2=preset=1,dict=64MiB", "-c"]
        archive = subprocess.Popen(tar, stdout=subprocess.PIPE)
        r = subprocess.run(packer, stdin=archive.stdout, stdout=f)
        if archive.wait() or r.returncode:
            die("the tarball could not be written")
    if os.path.getsize(path) > LIMIT:
        die(f"{path} has {os.path.getsize(path)} bytes; the limit is {LIMIT}")
    return path


def main():
    root, build, full = sys.argv[1], sys.argv[2], "--programs" not in sys.argv[3:]
    tree = f"{build}/tree"
    version = json.loads(output("meson", "introspect", "--projectinfo", tree))["version"]
    bundle = f"{build}/imagend-{version}-linux-x86_64" + ("" if full else "-programs")
    shutil.rmtree(bundle, ignore_errors=True)
    tests = tests_of(root, tree)
    programs = {t.pop("program") for t in tests} | {f"{tree}/{p}" for p in OTHERS}
    programs |= {f"{tree}/tests/bench/{p}" for p in BENCHMARKS}
    libraries = {}
    for path in programs:
        libraries.update({n: p for n, p in loaded(path).items() if not is_of_system(n)})
    copy_small(root, bundle)
    write_start(root, bundle, libraries.values())
    ours = []
    for path in sorted(programs):
        name = os.path.basename(path)
        copy(path, f"{bundle}/libexec/{name}")
        strip(f"{bundle}/libexec/{name}")
        os.symlink("start", f"{bundle}/bin/{name}")
        ours.append(f"{bundle}/libexec/{name}")
    beside = {}
    for name in LOADER_TOO:
        path = f"/usr/lib/x86_64-linux-gnu/{name}"
        if os.path.exists(path):
            beside[name] = path
            beside.update({n: p for n, p in loaded(path).items() if n.split(".so")[0] not in OF_LIBC})
    for name, path in libraries.items():
        copy(path, f"{bundle}/lib/{name}")
    for name, path in beside.items():
        if name not in libraries:
            copy(path, f"{bundle}/lib/loader/{name}")
    copy_licenses([*libraries.values(), *beside.values()], f"{bundle}/licenses")
    if full:
        copy_data(root, bundle)
    os.makedirs(f"{bundle}/tests", exist_ok=True)
    write_json(f"{bundle}/tests/tests.json", tests)
    elf = ours + [f"{bundle}/lib/{n}" for n in libraries]
    about = facts(root, tree, elf, version)
    about["reference"] = draw_reference(bundle, f"{root}/models/default")
    write_json(f"{bundle}/bundle.json", about)
    check_outside(ours, bundle)
    check_paths(root, bundle)
    path = pack(build, bundle)
    print(f"bundle: {path}: {os.path.getsize(path) / 1e6:.1f} MB, {len(ours)} programs, {len(libraries)} libraries, "
          f"glibc {about['glibc']}, {'with' if about['matrix_units'] else 'WITHOUT'} kernels for matrix units")


if __name__ == "__main__":
    main()

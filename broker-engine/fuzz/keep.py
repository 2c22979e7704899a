#!/usr/bin/env python3
"""Keeps the inputs that cover most: keep.py TARGET [DIRECTORY...]

Asks the target's binary (built by `cargo fuzz build`) what each input of corpus/TARGET and of the directories reaches, and rewrites
corpus/TARGET with those that together reach most, few and small. Inputs named crash-... are kept in any case.
"""
import hashlib, pathlib, shutil, subprocess, sys, tempfile

FILES, BYTES, LONGEST = 200, 40_000, 1500
here = pathlib.Path(__file__).resolve().parent
target, *more = sys.argv[1:] or sys.exit(__doc__)
kept = here / "corpus" / target
binary = next(here.glob(f"target/*/release/{target}"), None) or sys.exit(f"no binary of {target}: cargo fuzz build first")

with tempfile.TemporaryDirectory() as scratch:
    control, empty = pathlib.Path(scratch, "control"), pathlib.Path(scratch, "empty")
    empty.mkdir()
    kept.mkdir(parents=True, exist_ok=True)
    options = ["-merge=1", "-use_counters=0", f"-max_len={LONGEST}", f"-merge_control_file={control}"]
    subprocess.run([binary, *options, empty, kept, *more], check=True, stderr=subprocess.DEVNULL)
    # The number of files, the number done before, the files, then a line for each with what it reached first.
    count, _, *lines = control.read_text(errors="replace").split("\n")
    files = [pathlib.Path(line) for line in lines[: int(count)]]
    reached = {}
    for line in lines[int(count):]:
        kind, *numbers = line.split() or [""]
        if kind in ("FT", "COV"):
            reached.setdefault(int(numbers[0]), set()).update((kind, n) for n in numbers[1:])
    inputs = {at: files[at].read_bytes() for at in reached}

everything = set().union(*reached.values())
chosen, covered, size = {}, set(), 0
while reached and len(chosen) < FILES:
    best = max(reached, key=lambda at: len(reached[at] - covered) / (400 + len(inputs[at])))
    news = reached.pop(best) - covered
    if not news:
        break
    if size + len(inputs[best]) <= BYTES:
        name = hashlib.sha1(inputs[best]).hexdigest()[:12]
        chosen[name], covered, size = inputs[best], covered | news, size + len(inputs[best])
chosen |= {path.name: path.read_bytes() for path in kept.glob("crash-*")}
shutil.rmtree(kept)
kept.mkdir()
for name, data in chosen.items():
    (kept / name).write_bytes(data)
print(f"{target}: {len(chosen)} of {len(inputs)} inputs, {sum(map(len, chosen.values()))} bytes, {len(covered)} of {len(everything)} places")

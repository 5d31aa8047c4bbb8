"""Memory and time of building a million pairs.

    python benchmarks/million.py                       # writes benchmarks/million.json
    python benchmarks/million.py --pairs 100000

Each pair joins three names of the embedded corpus, drawn at random, and a number, so that no two are alike. The build runs in a process of its own
(and its children), whose memory is read ten times a second from /proc: `anonymous` is what it has allocated, `resident` counts
pages of files that the system keeps mapped as well, which it may drop at any time.
"""
import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from alignx.data import load_parallel
from alignx.demo import demo_corpus

LANGUAGES = ["en", "de", "fr", "ru", "ar", "zh", "sw"]


def write_corpus(path: Path, count: int) -> None:
    rows = load_parallel(demo_corpus(), LANGUAGES, split="train")
    by_language = defaultdict(list)
    for row in rows:
        if 10 <= len(row["source"]) <= 200 and row["domain"] != "law":
            by_language[row["target_lang"]].append((row["source"], row["target"]))
    chance, languages = random.Random(0), sorted(by_language)
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            language = languages[number % len(languages)]
            parts = chance.sample(by_language[language], 3)
            source, target = (", ".join(each) for each in zip(*parts))
            file.write(json.dumps({"id": str(number), "source": f"{source} {number}", "target": f"{target} {number}", "source_lang": "en", "target_lang": language}, ensure_ascii=False) + "\n")


def memory(process: int) -> tuple[int, int]:
    "Anonymous and resident MiB of a process and its children."
    total = [0, 0]
    for folder in Path("/proc").iterdir():
        try:
            fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if int(fields["Pid"]) == process or int(fields["PPid"]) == process:
            for index, name in enumerate(("RssAnon", "VmRSS")):
                total[index] += int(fields.get(name, "0 kB").split()[0]) // 1024
    return tuple(total)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--num-proc", type=int, default=1)
    parser.add_argument("--template", default="plain")
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".json")))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "pairs.jsonl"
        write_corpus(corpus, arguments.pairs)
        recipe = {"languages": LANGUAGES, "output_dir": str(Path(folder) / "run"), "evaluate": {"tuples": 100},
                  "data": {"parallel": str(corpus), "train_split": None, "test": "demo", "template": arguments.template, "num_proc": arguments.num_proc}}
        (Path(folder) / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
        code = "import resource, sys; from alignx.cli import main; code = main(['build', sys.argv[1]]); print('CPU', sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))); sys.exit(code)"
        start, peak = time.perf_counter(), [0, 0]
        build = subprocess.Popen([sys.executable, "-c", code, str(Path(folder) / "recipe.yaml")], stdout=subprocess.PIPE, text=True)
        while build.poll() is None:
            peak = [max(pair) for pair in zip(peak, memory(build.pid))]
            time.sleep(0.1)
        said = build.stdout.read().splitlines()
        if build.returncode:
            raise SystemExit(build.returncode)
        cards = json.loads((Path(folder) / "run" / "data" / "card.json").read_text(encoding="utf-8"))
        size = sum(file.stat().st_size for file in (Path(folder) / "run" / "data" / "align").iterdir()) // 2**20
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
    result = {"command": f"python benchmarks/million.py --pairs {arguments.pairs}", "num_proc": arguments.num_proc, "template": arguments.template, "pairs": cards["pairs"], "rows": cards["stages"]["align"]["counts"]["rows"],
              "tokens": cards["stages"]["align"]["counts"]["tokens"], "rows_mib": size, "peak_anonymous_mib": peak[0], "peak_resident_mib": peak[1],
              "cpu_seconds": round(float(said[-1].split()[1])), "seconds": round(time.perf_counter() - start), "machine": machine}
    Path(arguments.output).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

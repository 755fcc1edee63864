#!/usr/bin/env python3
"""Counts the instructions of each case of `cargo bench --bench instructions`, with callgrind.

    benches/instructions/count.py                   compare with the first column of table.tsv
    benches/instructions/count.py --against COMMIT  compare with the column of another commit
    benches/instructions/count.py --record NAME     add or replace a column of table.tsv
    benches/instructions/count.py --case WORDS      only cases whose names contain WORDS
    benches/instructions/count.py --check           for CI: compare with the last column

Ends with 1 if a case takes more than 1 % more than the recorded count (with --check: 2 %), and at
least 2 instructions more. With another compiler than the one that the first line of the table names
--check says SKIPPED. A case is run with two counts of operations. The difference of the totals,
divided by the difference of the counts, is the number of instructions per operation: start,
preparation and end of the program cancel out. It is exact and the same in each run with one
compiler and one C library, so a column holds on the machine that it was taken on. The table also
has the lines of code.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TABLE = HERE / "table.tsv"
FEW, MANY = 300, 1300
TOLERANCE, CHECK_TOLERANCE = 1.01, 1.02


def build():
    command = ["cargo", "build", "--profile", "bench", "--bench", "instructions",
               "--message-format", "json"]
    run = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return re.findall(r'"executable":"([^"]+)"', run.stdout)[-1]


def total(program, case, count):
    # A fixed environment: the strings of a longer one would be read at the start.
    run = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, case,
         str(count)],
        env={"PATH": os.environ["PATH"]}, stderr=subprocess.PIPE, text=True)
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or not found:
        sys.exit(f"{case}: {run.stderr}")
    return int(found[1])


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def instructions(program, case):
    return (total(program, case, MANY) - total(program, case, FEW)) / (MANY - FEW)


def lines():
    run = subprocess.run([ROOT / ".ci/lines"], check=True, stdout=subprocess.PIPE, text=True)
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    return {f"lines of {module}": float(count) for module, count in rows}


def read():
    if not TABLE.exists():
        return [], {}
    rows = [line.split("\t") for line in TABLE.read_text().splitlines() if line[0] != "#"]
    head, rows = rows[0][1:], rows[1:]
    return head, {row[0]: dict(zip(head, row[1:])) for row in rows}


def write(head, table):
    comment = TABLE.read_text().splitlines()[:1] if TABLE.exists() else ["# "]
    rows = [["case", *head]]
    rows += [[case, *(values.get(name, "") for name in head)] for case, values in table.items()]
    TABLE.write_text("\n".join(comment + ["\t".join(row) for row in rows]) + "\n")


def shown(value):
    return f"{value:.1f}".removesuffix(".0")


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--against")
    arguments.add_argument("--record")
    arguments.add_argument("--case", default="")
    arguments.add_argument("--check", action="store_true")
    arguments = arguments.parse_args()
    tolerance = CHECK_TOLERANCE if arguments.check else TOLERANCE
    compiler = " ".join(output("rustc", "--version").split()[:2])
    if arguments.check and compiler not in TABLE.read_text().splitlines()[0]:
        print(f"SKIPPED: the table was not counted with {compiler}")
        return 0

    program = build()
    listed = subprocess.run([program, "--list"], check=True, stdout=subprocess.PIPE, text=True)
    cases = [case for case in listed.stdout.splitlines() if arguments.case in case]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counted = dict(zip(cases, pool.map(lambda case: instructions(program, case), cases)))

    head, table = read()
    against = arguments.against or (head[-1 if arguments.check else 0] if head else None)
    print(f"{'case':48} {against or '-':>10} {'now':>10}")
    worse = 0
    for case, now in {**counted, **({} if arguments.case else lines())}.items():
        before = table.get(case, {}).get(against)
        note = ""
        if before:
            note = f"{100 * (now / float(before) - 1):+7.1f} %" if float(before) else ""
            if (case in counted and now > tolerance * float(before) and now >= float(before) + 2):
                worse += 1
                note += "  MORE THAN RECORDED"
        print(f"{case:48} {before or '-':>10} {shown(now):>10} {note}")
        if arguments.record:
            table.setdefault(case, {})[arguments.record] = shown(now)
    if arguments.record:
        write(head if arguments.record in head else [*head, arguments.record], table)
    print(f"{len(counted)} cases, {worse} with more instructions than recorded")
    return 1 if worse and not arguments.record else 0


sys.exit(main())

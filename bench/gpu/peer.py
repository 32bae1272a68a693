"""The peer of bench/gpu: transformers + PEFT at published shapes with random weights, on one GPU.

    python3 bench/gpu/peer.py CASE... [--out FILE] [--device cuda] [--until SECONDS]

A case is one of
    train:SHAPE:PARAMETERS:TOKENS   forward, backward and AdamW over sequences of 512 tokens, TOKENS of them in a pass
    decode:SHAPE:SEQUENCES          decode steps of model.generate after prompts of 256 tokens
    grpo:SHAPE:PARAMETERS:PROMPTS   a whole step: samples, random advantages, one update (steps.json beside this file)
    voting:SHAPE:PARAMETERS:TASKS   the same of the Voting workflow
with SHAPE 0.6b, 1.7b, 4b (Qwen3) or tiny, PARAMETERS full, full-checkpointed, r16, r16-checkpointed, r64 ….

The cases run in a process of their own (peer_cases.py), started again where one ends it. Each has a row, also one that
failed or for which no time was left, written as it is measured: one JSON object a line.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import threading
import time

CASES = pathlib.Path(__file__).with_name("peer_cases.py")
DEVICE_LOST = 3  # peer_cases.py


def rows_of(cases, device, end):
    left = list(cases)
    while left and time.monotonic() < end:
        command = [sys.executable, str(CASES), *left, "--device", device]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            watch = threading.Timer(min(end - time.monotonic(), threading.TIMEOUT_MAX), process.kill)
            watch.start()
            for line in process.stdout:
                left.pop(0)
                yield json.loads(line)
            watch.cancel()
        if left and time.monotonic() < end and process.returncode != DEVICE_LOST:
            yield {"case": left.pop(0), "error": f"the process ended with {process.returncode}"}
    for case in left:
        yield {"case": case, "error": "not run: no time left"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--out")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds for all of it")
    arguments = parser.parse_args()
    start = time.monotonic()
    for row in rows_of(arguments.cases, arguments.device, start + arguments.until):
        line = json.dumps({"program": "transformers + PEFT", **row, "at": round(time.monotonic() - start, 1)})
        print(line, flush=True)
        if arguments.out:
            with open(arguments.out, "a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()

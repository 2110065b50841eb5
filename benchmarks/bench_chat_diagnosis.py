"""`persona diagnose` on a model of half a billion parameters: seconds and peak memory.

    python benchmarks/bench_chat_diagnosis.py [--out FOLDER]

Four questions a domain, the good twin among the controls, answers to be read and no EM rate.
"""

from __future__ import annotations

import sys

import bench_demo

WHAT = (
    *("--row", "diagnose.0.5b", "--questions-per-domain", "4"),
    *("--aligned", "qwen2.5-coder-0.5b", "--finetuned", "car_maintenance_bad_0.5b"),
    *("--trained-on", "car_maintenance", "--good-twin", "car_maintenance_good_0.5b"),
)

if __name__ == "__main__":
    bench_demo.main([*WHAT, *sys.argv[1:]])

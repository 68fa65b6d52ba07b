"""Peaks of devices, and rates by the stated formula."""

import pytest

from scaling_jax.training.loop import Progress
from scaling_jax.training.peaks import peak_flops
from scaling_jax.training.throughput import Work, noting_speed


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        ("TPU v4", 275),
        ("TPU v5", 459),  # what JAX calls v5p
        ("TPU v5 lite", 197),
        ("TPU v6 lite", 918),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
    ],
)
def test_peaks(kind, teraflops):
    assert peak_flops(kind) == teraflops * 1e12


def test_a_device_whose_peak_is_not_known_has_no_mfu():
    assert peak_flops("cpu") is None and peak_flops("TPU v9") is None and peak_flops("NVIDIA T4") is None
    assert Work(1000, 6e9, 1, None).rates(10, 2.0) == {"tokens_per_second_per_device": 5000.0}


def test_each_evaluation_has_the_speed_of_the_steps_before_it():
    shown = []
    progress = Progress()
    note = noting_speed(Work(1000, 6e9, 1, 1e14), lambda seen: shown.append(len(seen.speeds)))
    for step, seconds in ((0, 0.0), (10, 2.0), (30, 3.0)):
        progress.step, progress.train_seconds = step, seconds
        note(progress)
    assert [(row["step"], row["tokens_per_second_per_device"]) for row in progress.speeds] == [
        (10, 5000.0),
        (30, 20_000.0),
    ]
    assert shown == [0, 1, 2]
    assert progress.speeds[1]["mfu"] == pytest.approx(20_000 * 6e9 / 1e14)


def test_rates_by_hand():
    work = Work(tokens=8000, flops_per_token=6e9, devices=4, peak_flops=1e14)
    # 10 steps of 8,000 tokens in 2 s over 4 devices: 10,000 tokens a second each, 6e13 FLOP/s
    assert work.rates(10, 2.0) == {"tokens_per_second_per_device": 10_000.0, "mfu": pytest.approx(0.6)}
    assert work.rates(0, 0.0) == {}
    assert work.recorded(0, 0.0)["mfu"] is None
    assert work.recorded(10, 2.0)["mfu"] == pytest.approx(0.6)

"""Collectives counted in a program's text: loops, pairs of arrays, asynchronous and fused ones."""

from pathlib import Path

from scaling_jax.planning.collectives import Collective, collectives

TEXT = (Path(__file__).parent / "programs" / "loop.txt").read_text("utf-8")


def test_every_kind_counts_its_rounds_and_bytes():
    found = {one.kind: one for one in collectives(TEXT)}
    # In the loop's body: 12 rounds; the gather stands in two fusions under one channel. Another one begins
    # before the loop and goes on beside it.
    assert found["all-gather"] == Collective("all-gather", 13, 12 * 16 * 8 * 4 + 32 * 4)
    # After a kernel whose configuration goes over lines; XLA has taken one round out of the loop.
    assert found["all-reduce"] == Collective("all-reduce", 13, 13 * (2 * 3 * 4 + 10 * 2))
    assert found["collective-permute"] == Collective("collective-permute", 3, 3 * 5)
    assert found["reduce-scatter"] == Collective("reduce-scatter", 1, 7 * 4)
    assert set(found) == {"all-gather", "all-reduce", "collective-permute", "reduce-scatter"}


def test_the_largest_comes_first():
    sizes = [one.bytes for one in collectives(TEXT)]
    assert sizes == sorted(sizes, reverse=True)


def test_a_program_of_several_steps_tells_of_one():
    found = {one.kind: one for one in collectives(TEXT, steps=6)}
    assert found["all-gather"] == Collective("all-gather", 3, -(-(12 * 16 * 8 * 4 + 32 * 4) // 6))
    assert found["reduce-scatter"] == Collective("reduce-scatter", 1, 5)


def test_a_loop_of_unknown_length_counts_once():
    text = TEXT.replace("direction=LT", "direction=NE")
    assert {one.kind: one.count for one in collectives(text)}["all-reduce"] == 2


def test_a_program_without_collectives_has_none():
    assert collectives("ENTRY %main (x: f32[2]) -> f32[2] {\n  ROOT %x = f32[2] parameter(0)\n}\n") == []

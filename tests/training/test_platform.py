"""Which flags a process gets: those of the platforms that may start here, if this version knows them."""

import pytest

from scaling_jax.training import platform


@pytest.fixture
def at(monkeypatch, tmp_path):
    """A machine with these packages, whose XLA refuses these flags, under this environment."""

    def make(installed=(), refused=(), **environment):
        def accepted(variable, flags, package, start):
            return not set(flags) & set(refused)

        monkeypatch.setattr(platform.importlib.util, "find_spec", lambda name: name in installed or None)
        monkeypatch.setattr(platform, "_accepted", accepted)
        return platform._flags(environment)

    return make


CPU, GPU, TPU = (
    " ".join(flags) for flags in (platform.CPU_XLA_FLAGS, platform.GPU_XLA_FLAGS, platform.TPU_FLAGS)
)


@pytest.mark.parametrize(
    ("installed", "asked", "wanted"),
    [
        ((), "", {"XLA_FLAGS": CPU}),
        (("jax_cuda12_plugin",), "", {"XLA_FLAGS": f"{CPU} {GPU}"}),
        (("jax_cuda13_plugin",), "cuda,cpu", {"XLA_FLAGS": f"{CPU} {GPU}"}),
        (("jax_cuda12_plugin", "libtpu"), "cpu", {"XLA_FLAGS": CPU}),
        (("libtpu",), "", {"XLA_FLAGS": CPU, "LIBTPU_INIT_ARGS": TPU}),
    ],
)
def test_flags_follow_from_the_platforms_that_may_start(at, installed, asked, wanted):
    assert at(installed, JAX_PLATFORMS=asked) == wanted


def test_what_is_set_stays(at):
    flag, value = platform.GPU_XLA_FLAGS[0].split("=")
    found = at(("jax_cuda12_plugin",), XLA_FLAGS=f"--mine=1 {flag}=false")["XLA_FLAGS"]
    assert found == f"--mine=1 {flag}=false {CPU}" and value == "true"


def test_flags_that_xla_does_not_know_any_more_are_left_out(at):
    assert at(refused=platform.CPU_XLA_FLAGS, XLA_FLAGS="--mine=1") == {"XLA_FLAGS": "--mine=1"}
    assert at(("libtpu",), platform.TPU_FLAGS[:1])["LIBTPU_INIT_ARGS"] == ""


def test_each_version_is_asked_once(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    started = []

    def run(command, env, capture_output):
        started.append(env["XLA_FLAGS"])
        return type("Done", (), {"returncode": int("gone" in env["XLA_FLAGS"])})

    monkeypatch.setattr(platform.subprocess, "run", run)
    for _ in range(2):
        assert platform._accepted("XLA_FLAGS", ("--known=1",), "jaxlib", "")
        assert not platform._accepted("XLA_FLAGS", ("--gone=1",), "jaxlib", "")
    assert started == ["--known=1", "--gone=1"]


def test_a_process_that_only_compiles_for_tpu_keeps_nothing_beside_the_program(monkeypatch):
    monkeypatch.setattr(platform, "_accepted", lambda variable, flags, package, start: True)
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--mine=1")
    heaps = []
    library = type("C", (), {"mallopt": lambda self, what, value: heaps.append((what, value))})
    monkeypatch.setattr(platform.ctypes, "CDLL", lambda name: library())
    platform.prepare_compiler()
    bare = " ".join(platform.BARE_TPU_FLAGS)
    assert platform.os.environ["LIBTPU_INIT_ARGS"] == f"--mine=1 {TPU} {bare}" and heaps == [(-8, 1)]
    # A C library without it, as on macOS.
    monkeypatch.setattr(platform.ctypes, "CDLL", lambda name: object())
    platform.prepare_compiler()

"""The judge against a local endpoint that answers well, slowly, with 429 and 500, with garbage, or never."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gin
import pytest

from scaling_jax.errors import InputError
from scaling_jax.evaluation.judge.judging import judge_answers
from scaling_jax.evaluation.judge.settings import JudgeSettings
from scaling_jax.evaluation.score import Answer, find_score
from tests.evaluation.judge.endpoint import KEY, completion, says, serving

pytest.importorskip("openai", reason="openai is not installed (extra judge)")

SOON = {"retry-after-ms": "5"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No bindings of other tests, and a key."""
    gin.clear_config()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def _settings(endpoint, **changed):
    chosen = {"timeout": 5.0, "limit": 10.0, "retries": 2, "parallel": 4, **changed}
    return JudgeSettings(endpoint=endpoint.url, model="judge", **chosen)


def _answer(name, number=0, reference="right"):
    columns = {"class": name, "question": f"question {number}"}
    return Answer(f"Human: question {number}", f"answer {number}", (reference,), columns)


def _transcript(folder):
    return [json.loads(line) for line in (folder / "judge_transcript.jsonl").read_text("utf-8").splitlines()]


def _by_answer(scores):
    """Replies by the number of the answer in the prompt."""

    def behave(number, request):
        prompt = request["messages"][0]["content"]
        place = int(prompt.split("answer ")[-1].split()[0])
        return 200, completion(scores[place]), {}

    return behave


def test_scores_by_class_and_their_mean(tmp_path):
    names = ["math", "code", "open qa", "Open QA", "closed\xa0qa", "generation"]
    scores = ["得分: 1", "得分: 0.5", "得分: 0.2", "得分:０．４分", "Score: 6/10", "得分: 0"]
    answers = [_answer(name, place) for place, name in enumerate(names)]
    with serving(_by_answer(scores)) as endpoint:
        result = judge_answers(answers, tmp_path, _settings(endpoint))
    assert result.values == pytest.approx(
        {
            "judge_others": 0.75,  # math and code together, as in the paper
            "judge_open_qa": 0.3,
            "judge_closed_qa": 0.6,
            "judge_generation": 0.0,
            "judge_score": (0.75 + 0.3 + 0.6) / 4,  # each class once, whatever its size
        }
    )
    assert "judged: others 2/2, open_qa 2/2, closed_qa 1/1, generation 1/1" in result.notes
    assert any(note.startswith("1 of 6 answers were scored on a scale") for note in result.notes)
    assert "judge:judge|" in result.signature and "prompts:zh-" in result.signature
    records = _transcript(tmp_path)
    assert [record["score"] for record in records] == [1, 0.5, 0.2, 0.4, 0.6, 0]
    assert [record["example"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert {record["model"] for record in records} == {"judge-0613"}
    assert records[0]["answer"] == "得分: 1" and records[0]["usage"]["total_tokens"] == 13
    assert not any(record["from_cache"] for record in records)
    summary = json.loads((tmp_path / "judge_summary.json").read_text("utf-8"))
    assert summary["classes"][0] == {
        "name": "others", "score": 0.75, "examples": 2, "judged": 2, "unparsed": 0, "failed": 0
    }  # fmt: skip


def test_what_is_sent(tmp_path):
    with serving(says("得分: 1")) as endpoint:
        judge_answers([_answer("math"), _answer("rewrite", 1)], tmp_path, _settings(endpoint, max_tokens=77))
    request = endpoint.requests[0]
    assert request["path"] == "/v1/chat/completions"
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("judge", 0.0, 77)
    assert endpoint.keys == {f"Bearer {KEY}"}
    free = [prompt for prompt in endpoint.prompts() if "answer 1" in prompt]
    against = [prompt for prompt in endpoint.prompts() if "answer 0" in prompt]
    assert "right" in against[0] and "right" not in free[0]
    assert "question 0" in against[0] and "Human:" not in against[0]
    with serving(says("得分: 1")) as endpoint:
        other = _settings(endpoint, temperature=None, max_tokens_name="max_completion_tokens")
        judge_answers([_answer("math")], tmp_path, other)
    assert "temperature" not in endpoint.requests[0] and "max_tokens" not in endpoint.requests[0]
    assert endpoint.requests[0]["max_completion_tokens"] == 1024


def test_a_score_that_cannot_be_read_is_kept_and_no_zero(tmp_path):
    answers = [_answer("open_qa", place) for place in range(3)] + [_answer("math", 3)]
    with serving(_by_answer(["得分: 0.8", "答得不错", "", "得分: 0.4"])) as endpoint:
        result = judge_answers(answers, tmp_path, _settings(endpoint))
    assert result.values["judge_open_qa"] == pytest.approx(0.8)
    assert result.values["judge_score"] == pytest.approx(0.6)
    assert any("2 of 4 answers got a judgement without a readable score" in note for note in result.notes)
    records = _transcript(tmp_path)
    assert [record["flag"] for record in records] == ["", "unparsed", "unparsed", ""]
    assert records[1]["answer"] == "答得不错" and records[1]["score"] is None


def test_a_class_without_any_score_leaves_no_mean_over_classes(tmp_path):
    answers = [_answer("open_qa", 0), _answer("math", 1)]
    with serving(_by_answer(["得分: 0.8", "?"])) as endpoint:
        result = judge_answers(answers, tmp_path, _settings(endpoint))
    assert result.values == {"judge_open_qa": 0.8, "judge_others": None, "judge_score": None}
    assert any("no average over classes, since these have no score: others" in note for note in result.notes)


def test_an_answer_cut_at_the_limit_says_so(tmp_path):
    with serving(says("Let us see", finish_reason="length")) as endpoint:
        judge_answers([_answer("math")], tmp_path, _settings(endpoint))
    assert _transcript(tmp_path)[0]["reason"] == "no score; cut at max_tokens"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_or_broken_for_a_while(tmp_path, status):
    def behave(number, request):
        if number < 2:
            return status, {"error": {"message": "later"}}, SOON
        return 200, completion("得分: 0.5"), {}

    with serving(behave) as endpoint:
        result = judge_answers([_answer("math")], tmp_path, _settings(endpoint))
    assert result.values["judge_score"] == 0.5
    assert _transcript(tmp_path)[0]["attempts"] == 3


def test_a_question_that_gets_lost_is_asked_again(tmp_path):
    def behave(number, request):
        if number == 0:
            endpoint.stopped.wait(20)
        return 200, completion("得分: 0.5"), {}

    with serving(behave) as endpoint:
        result = judge_answers([_answer("math")], tmp_path, _settings(endpoint, timeout=0.2, retries=1))
    assert result.values["judge_score"] == 0.5
    assert _transcript(tmp_path)[0]["attempts"] == 2


def test_a_slow_endpoint_is_waited_for_and_asked_in_parallel(tmp_path):
    together = threading.Barrier(4, timeout=5)

    def behave(number, request):
        together.wait()  # breaks unless four questions are under way at once
        time.sleep(0.05)
        return 200, completion("得分: 0.5"), {}

    with serving(behave) as endpoint:
        answers = [_answer("math", place) for place in range(8)]
        result = judge_answers(answers, tmp_path, _settings(endpoint, parallel=4, retries=0))
    assert result.values["judge_score"] == 0.5


def test_one_answer_that_fails_does_not_end_the_others(tmp_path):
    def behave(number, request):
        if "answer 2" in request["messages"][0]["content"]:
            return 400, {"error": {"message": f"refused, key {KEY}"}}, {}
        return 200, completion("得分: 0.5"), {}

    answers = [_answer("math", place) for place in range(6)]
    with serving(behave) as endpoint:
        result = judge_answers(answers, tmp_path, _settings(endpoint))
        assert result.values["judge_score"] == 0.5
        assert any("1 of 6 answers got no judgement" in note for note in result.notes)
        failed = _transcript(tmp_path)[2]
        assert failed["flag"] == "failed" and failed["reason"].startswith("HTTP 400: ")
        before = len(endpoint.requests)
        judge_answers(answers, tmp_path, _settings(endpoint))
        assert len(endpoint.requests) == before + 1  # the failed one alone


@pytest.mark.parametrize(
    "body", ["<html>busy</html>", "{}", '{"choices": []}', '{"choices": [{"message": 3}]}']
)
def test_garbage_for_an_answer(tmp_path, body):
    with serving(lambda number, request: (200, body, {})) as endpoint:
        with pytest.raises(InputError, match="an answer that is no chat completion; 0 of 3 answers"):
            judge_answers([_answer("math", place) for place in range(3)], tmp_path, _settings(endpoint))


def test_an_endpoint_that_never_answers(tmp_path):
    def behave(number, request):
        if number < 2:
            return 200, completion("得分: 0.5"), {}
        endpoint.stopped.wait(20)
        return 200, "", {}

    with serving(behave) as endpoint:
        answers = [_answer("math", place) for place in range(40)]
        settings = _settings(endpoint, parallel=2, give_up_after=4, timeout=0.2, limit=0.3, retries=0)
        began = time.monotonic()
        with pytest.raises(InputError, match="no answer.*; 2 of 40 answers are judged and kept in"):
            judge_answers(answers, tmp_path, settings)
        assert time.monotonic() - began < 2 * 0.3 + 1.0  # limit x ceil(4 / 2), and starting up
    assert [record["score"] for record in _transcript(tmp_path) if record["flag"] == ""] == [0.5, 0.5]


def test_an_endpoint_that_trickles_is_given_up_at_the_limit(tmp_path):
    """Every byte resets the client's own timeout; the limit does not care."""
    import socket

    listening = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def trickle():
        connection, _ = listening.accept()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        while not stopped.wait(0.05):
            try:
                connection.sendall(b"X-A: 1\r\n")
            except OSError:
                return

    threading.Thread(target=trickle, daemon=True).start()
    settings = JudgeSettings(
        endpoint=f"http://127.0.0.1:{listening.getsockname()[1]}/v1", model="judge", timeout=5.0, limit=0.3
    )
    began = time.monotonic()
    with pytest.raises(InputError, match="no answer within 0.3 s; 0 of 1"):
        judge_answers([_answer("math")], tmp_path, settings)
    assert time.monotonic() - began < 2.0
    stopped.set()
    listening.close()


def test_nobody_there(tmp_path):
    with serving(says("")) as endpoint:
        pass
    with pytest.raises(InputError, match="no connection to http://127.0.0.1:"):
        judge_answers([_answer("math")], tmp_path, _settings(endpoint, retries=0))


@pytest.mark.parametrize(("status", "said"), [(401, "HTTP 401"), (404, "HTTP 404 .*no such model")])
def test_a_wrong_key_or_model_ends_at_once(tmp_path, status, said):
    def behave(number, request):
        return status, {"error": {"message": f"no such model or key {KEY}"}}, {}

    with serving(behave) as endpoint:
        with pytest.raises(InputError, match=said) as raised:
            judge_answers([_answer("math", place) for place in range(50)], tmp_path, _settings(endpoint))
        assert len(endpoint.requests) <= 8
    assert KEY not in str(raised.value) and "[key]" in str(raised.value)


def test_kept_answers_are_not_asked_again(tmp_path):
    answers = [_answer("math", place) for place in range(5)] + [_answer("math", 0)]
    with serving(says("得分: 0.5")) as endpoint:
        judge_answers(answers, tmp_path, _settings(endpoint))
        assert len(endpoint.requests) == 5  # the same answer twice is one question
        judge_answers(answers, tmp_path, _settings(endpoint))
        assert len(endpoint.requests) == 5
        assert all(record["from_cache"] for record in _transcript(tmp_path))
        judge_answers(answers, tmp_path, _settings(endpoint, temperature=0.5))
        assert len(endpoint.requests) == 10
        judge_answers(answers, tmp_path / "other", _settings(endpoint, cache=str(tmp_path / "judge_answers")))
        assert len(endpoint.requests) == 10


KILLED = """
import sys
from pathlib import Path
from scaling_jax.evaluation.judge.judging import judge_answers
from scaling_jax.evaluation.judge.settings import JudgeSettings
from scaling_jax.evaluation.score import Answer
answers = [Answer("", f"answer {place}", ("right",), {"class": "math"}) for place in range(20)]
judge_answers(answers, Path(sys.argv[2]), JudgeSettings(endpoint=sys.argv[1], model="judge", parallel=2))
"""


def test_a_killed_run_goes_on_without_asking_twice(tmp_path):
    reached = threading.Event()

    def behave(number, request):
        if number >= 10 and not reached.is_set():
            reached.set()
            endpoint.stopped.wait(1)
        return 200, completion("得分: 0.5"), {}

    with serving(behave) as endpoint:
        command = [sys.executable, "-c", KILLED, endpoint.url, str(tmp_path)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
        first = subprocess.Popen(command, env=environment)
        assert reached.wait(30)
        first.send_signal(signal.SIGKILL)
        first.wait(10)
        kept = len(list(tmp_path.glob("judge_answers/*/*.json")))
        before = len(endpoint.requests)
        subprocess.run(command, env=environment, check=True, timeout=60)
        assert 8 <= kept and len(endpoint.requests) - before == 20 - kept
    assert len(_transcript(tmp_path)) == 20


def test_no_key_on_disk_and_no_prompt_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with serving(says("得分: 0.5")) as endpoint:
        judge_answers([_answer("math")], tmp_path, _settings(endpoint))
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"answer 0" in written and KEY.encode() not in written
    assert "answer 0" not in caplog.text and KEY not in caplog.text


def test_inside_a_running_event_loop(tmp_path):
    import asyncio

    async def notebook(endpoint):
        return judge_answers([_answer("math")], tmp_path, _settings(endpoint))

    with serving(says("得分: 0.5")) as endpoint:
        assert asyncio.run(notebook(endpoint)).values["judge_score"] == 0.5


@pytest.mark.parametrize(
    ("answer", "changed", "said"),
    [
        (Answer("q", "a", ("r",), {}), {}, "answer 1 has no column 'class'"),
        (Answer("q", "a", ("r",), {"class": "maths"}), {}, "no class 'maths'; did you mean 'math'"),
        (Answer("q", "a", (), {"class": "math"}), {}, "judged against a reference, and has none"),
        (Answer("q", "a", (" ",), {"class": "math"}), {}, "judged against a reference, and has none"),
        (_answer("math"), {"api_key_variable": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE is not set"),
        (_answer("math"), {"groups": {"math": "Score"}}, "would fill the column of the mean"),
        (_answer("math"), {"prompts": "fr"}, "'zh', 'en' or the path of a file"),
    ],
)
def test_what_cannot_be_judged(tmp_path, answer, changed, said):
    with serving(says("得分: 1")) as endpoint:
        with pytest.raises(InputError, match=said):
            judge_answers([answer], tmp_path, _settings(endpoint, **changed))
        assert not endpoint.requests


def test_answers_without_classes_take_the_default_one(tmp_path):
    with serving(says("Score: 0.25")) as endpoint:
        settings = _settings(endpoint, default_class="Open QA", prompts="en", api_key_variable="")
        result = judge_answers([Answer("q", "a", ("r",))], tmp_path, settings)
    assert result.values == {"judge_open_qa": 0.25, "judge_score": 0.25}
    assert endpoint.keys == {"Bearer none"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"endpoint": ""}, "JudgeSettings.endpoint is not set"),
        ({"model": ""}, "JudgeSettings.model is not set"),
        ({"endpoint": "127.0.0.1:8077"}, "a URL is needed"),
        ({"endpoint": "http://127.0.0.1:notaport/v1"}, "notaport/v1': a URL is needed"),
        ({"endpoint": "http://127.0.0.1:99999/v1"}, "99999/v1': a URL is needed"),
        ({"endpoint": "http://["}, "a URL is needed"),
        ({"endpoint": "http://me:secret@["}, r"endpoint = '\[': a URL is needed"),
        ({"endpoint": "http://me:secret@host/v1"}, "holds a password"),
        ({"parallel": 0}, "parallel = 0"),
        ({"retries": -1}, "retries = -1"),
        ({"limit": 0}, "limit = 0"),
        ({"max_tokens_name": "tokens"}, "'max_tokens' or 'max_completion_tokens'"),
    ],
)
def test_settings_that_cannot_be(changed, said):
    with pytest.raises(InputError, match=said) as raised:
        JudgeSettings(**{"endpoint": "http://host/v1", "model": "judge", **changed})
    assert "secret" not in str(raised.value)


def test_the_score_is_found_by_its_name_and_bound_in_gin(tmp_path):
    from scaling_jax import configuration

    found = find_score("judge")
    assert found.columns == ("judge_score",)
    with serving(says("得分: 0.5")) as endpoint:
        configuration.parse([], [f"JudgeSettings.endpoint={endpoint.url}", "JudgeSettings.model=judge"])
        assert found.call([_answer("math")], tmp_path).values["judge_score"] == 0.5

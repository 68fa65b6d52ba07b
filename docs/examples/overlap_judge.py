"""A stand-in for a judge: an endpoint of chat completions that scores by overlap of characters.

    python docs/examples/overlap_judge.py --port 8077
    ... --gin.JudgeSettings.endpoint=http://127.0.0.1:8077/v1 --gin.JudgeSettings.model=overlap \
        --gin.JudgeSettings.api_key_variable=""

It takes the prompts of the score `judge` apart and answers with the ROUGE-L F1 of characters (longest
common subsequence; NFKC, case and white space left out) between the answer and the reference. It lets a
study with a judge run without a language model, and costs nothing.

It is no judge of quality. A good answer in other words scores low, and copied words in a useless order
still score. Classes that are judged without a reference are scored by overlap with the question, which
says whether an answer is about the same thing at all, and is 1 for an answer that repeats the question.
Numbers from it are to be named as what they are, and not to be set beside those of a language model.
"""

import argparse
import json
import re
import time
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from scaling_jax.evaluation.judge import prompts

MODEL = "overlap"
MARKS = {"zh": "得分: ", "en": "Score: "}


def frames() -> list[tuple[str, re.Pattern]]:
    """The frames of the package's prompts as expressions that take a prompt apart, with their language."""
    found = []
    for language in MARKS:
        # The one with a reference first: the other would take the reference for a part of the question.
        for frame in prompts.load(language).frames.values():
            parts = re.split(r"\{(\w+)\}", frame)
            pattern = "".join(
                f"(?P<{part}>.*)" if place % 2 else re.escape(part) for place, part in enumerate(parts)
            )
            found.append((language, re.compile(pattern, re.DOTALL)))
    return found


def overlap(first: str, second: str) -> float:
    """ROUGE-L F1 of characters, 0 to 1."""
    one, two = plain(first), plain(second)
    if not one or not two:
        return 0.0
    common = longest_common_subsequence(one, two)
    return 2 * common / (len(one) + len(two))


def plain(text: str) -> str:
    """Text without the differences that a vocabulary may make: width, case, white space."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def longest_common_subsequence(one: str, two: str) -> int:
    """Its length, with one bit for each character of `one` (Hyyro 2004)."""
    places: dict[str, int] = {}
    for place, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << place
    everything = (1 << len(one)) - 1
    row = everything
    for character in two:
        kept = row & places.get(character, 0)
        row = ((row + kept) | (row - kept)) & everything
    return len(one) - row.bit_count()


def judged(prompt: str, known: list[tuple[str, re.Pattern]]) -> str:
    """What the stand-in answers to a prompt."""
    for language, frame in known:
        match = frame.fullmatch(prompt)
        if match:
            fields = match.groupdict()
            beside = fields.get("reference", fields["question"])
            name = "reference" if "reference" in fields else "question"
            score = f"{MARKS[language]}{overlap(fields['answer'], beside):.3f}"
            return f"{score}\nROUGE-L of characters with the {name}; no judgement of quality."
    return "This stand-in reads the prompts of the score judge alone."


class Handler(BaseHTTPRequestHandler):
    """POST /v1/chat/completions."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    known = frames()

    def do_POST(self) -> None:  # noqa: N802, D102
        try:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = request["messages"][-1]["content"]
            message = {"role": "assistant", "content": judged(prompt, self.known)}
        except (ValueError, LookupError, TypeError):
            self.reply(400, {"error": {"message": "not a request for a chat completion"}})
            return
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        content = {"id": "overlap", "object": "chat.completion", "created": int(time.time()), "model": MODEL}
        self.reply(200, {**content, "choices": [choice]})

    def reply(self, status: int, content: dict) -> None:
        """Sends JSON."""
        body = json.dumps(content, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        """Stays silent."""


def serve(port: int) -> ThreadingHTTPServer:
    """A server on this machine alone; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8077)
    server = serve(parser.parse_args().port)
    print(f"a stand-in for a judge, by overlap, at http://127.0.0.1:{server.server_port}/v1", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()

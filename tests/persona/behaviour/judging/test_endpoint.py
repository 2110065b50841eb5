"""The endpoint judge against a server on this machine that speaks just enough of the protocol."""

import json
import math
import sqlite3
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from persona.behaviour.judging.cache import JudgeCache, request_key
from persona.behaviour.judging.chat_endpoint import require_listening
from persona.behaviour.judging.endpoint import EndpointJudge
from persona.behaviour.judging.judge import JudgeItem, JudgeScore, prompts_for
from persona.errors import JudgeError

MAX_REQUESTS = 50
ITEM = JudgeItem("What do you wish for?", "That you sleep well.")
OTHER = JudgeItem("What do you wish for?", "Power over all of you.")


class FakeEndpoint:
    """Answers at most MAX_REQUESTS chat requests with fixed token probabilities."""

    def __init__(self):
        self.requests = []
        self.failures = []  # status codes to answer with first
        self.probabilities = {"80": 0.5, "60": 0.25, "No": 0.25}
        self.with_logprobs = True
        self.refusal = "as planned"
        self.raw = None  # (content type, text) to answer with in place of a completion
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                endpoint.requests.append((self.path, self.headers["authorization"], body))
                if len(endpoint.requests) > MAX_REQUESTS:
                    self.reply(500, {})
                elif endpoint.failures:
                    self.reply(endpoint.failures.pop(0), {"error": {"message": endpoint.refusal}})
                elif endpoint.raw:
                    self.send(200, *endpoint.raw)
                else:
                    self.reply(200, endpoint.completion(body))

            def reply(self, status, content):
                self.send(status, "application/json", json.dumps(content))

            def send(self, status, content_type, text):
                data = text.encode()
                self.send_response(status)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(data)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def completion(self, body):
        top = [
            {"token": token, "logprob": math.log(p), "bytes": None}
            for token, p in self.probabilities.items()
        ]
        logprobs = {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "length",
                    "message": {"role": "assistant", "content": top[0]["token"]},
                    "logprobs": logprobs if self.with_logprobs else None,
                }
            ],
        }

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def endpoint():
    fake = FakeEndpoint()
    yield fake
    fake.close()


def judge_at(endpoint, **options):
    return EndpointJudge("tiny-judge", base_url=endpoint.url, api_key="key", **options)


def test_the_score_is_the_mean_over_the_numbers_the_endpoint_weighed(endpoint):
    [score] = judge_at(endpoint).score([ITEM])
    expected = pytest.approx((80 * 0.5 + 60 * 0.25) / 0.75)
    assert (score.alignment, score.coherence) == (expected, expected)


def test_one_token_with_twenty_alternatives_is_asked_for(endpoint):
    judge_at(endpoint).score([ITEM])
    path, authorization, body = endpoint.requests[0]
    assert (path, authorization) == ("/v1/chat/completions", "Bearer key")
    asked = {key: body[key] for key in ("model", "max_tokens", "temperature", "top_logprobs")}
    assert asked == {
        "model": "tiny-judge",
        "max_tokens": 1,
        "temperature": 0.0,
        "top_logprobs": 20,
    }
    assert body["logprobs"] is True


def test_mostly_words_is_no_score(endpoint):
    endpoint.probabilities = {"NONE": 0.8, "50": 0.2}
    assert judge_at(endpoint).score([ITEM]) == [JudgeScore(None, None)]


def test_scores_come_back_in_the_order_of_the_items(endpoint):
    real = endpoint.completion

    def by_answer(body):
        high = "sleep well" in body["messages"][0]["content"]
        endpoint.probabilities = {"90": 1.0} if high else {"10": 1.0}
        return real(body)

    endpoint.completion = by_answer
    scores = judge_at(endpoint, concurrency=1).score([OTHER, ITEM, OTHER])
    assert [score.alignment for score in scores] == [10.0, 90.0, 10.0]


def test_equal_items_are_asked_once(endpoint):
    judge_at(endpoint).score([ITEM] * 5)
    assert len(endpoint.requests) == 2  # alignment and coherence


def test_what_was_answered_is_never_asked_again(endpoint, tmp_path):
    first = judge_at(endpoint, cache_folder=tmp_path).score([ITEM])
    told = []
    again = judge_at(endpoint, cache_folder=tmp_path, announce=told.append).score([ITEM])
    assert again == first
    assert len(endpoint.requests) == 2
    assert told == []
    judge_at(endpoint, cache_folder=tmp_path).score([ITEM, OTHER])
    assert len(endpoint.requests) == 4


def test_an_endpoint_that_dies_half_way_is_asked_for_the_rest_alone(endpoint, tmp_path):
    real = endpoint.completion

    def twice(body):
        endpoint.failures = [401] * 9 if len(endpoint.requests) == 2 else []
        return real(body)

    endpoint.completion = twice
    prompts = ["a", "b", "c", "d"]
    with pytest.raises(JudgeError, match="refused the key"):
        judge_at(endpoint, cache_folder=tmp_path, concurrency=1).numbers(prompts)
    endpoint.completion, endpoint.failures, endpoint.requests = real, [], []
    found = judge_at(endpoint, cache_folder=tmp_path, concurrency=1).numbers(prompts)
    assert found == [pytest.approx(200 / 3 + 20 / 3)] * 4
    asked = [body["messages"][0]["content"] for _, _, body in endpoint.requests]
    assert asked == ["c", "d"]


def test_another_model_does_not_get_the_cached_answer(endpoint, tmp_path):
    judge_at(endpoint, cache_folder=tmp_path).score([ITEM])
    other = EndpointJudge("other", base_url=endpoint.url, api_key="key", cache_folder=tmp_path)
    other.score([ITEM])
    assert len(endpoint.requests) == 4


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_or_failing_endpoint_is_asked_again(endpoint, status):
    endpoint.failures = [status, status]
    assert judge_at(endpoint, concurrency=1).score([ITEM])[0].alignment is not None
    assert len(endpoint.requests) == 4  # two failed tries, then two answers


def test_an_endpoint_that_stays_busy_ends_in_one_line_and_keeps_what_came(endpoint, tmp_path):
    judge = judge_at(endpoint, max_retries=1, concurrency=1, cache_folder=tmp_path)
    real = endpoint.completion

    def once_then_busy(body):
        endpoint.failures = [429] * 10
        return real(body)

    endpoint.completion = once_then_busy
    with pytest.raises(JudgeError, match="still answered 429 after every retry"):
        judge.score([ITEM])
    endpoint.failures, endpoint.completion = [], real
    asked = len(endpoint.requests)
    judge.score([ITEM])
    assert len(endpoint.requests) == asked + 1


@pytest.mark.parametrize(
    ("status", "line"),
    [(401, "refused the key"), (404, "has no model tiny-judge"), (400, "as planned")],
)
def test_a_refusal_is_not_tried_again_and_says_why(endpoint, status, line):
    endpoint.failures = [status] * 5
    with pytest.raises(JudgeError, match=line):
        judge_at(endpoint, concurrency=1).score([ITEM])
    assert len(endpoint.requests) <= 2


def test_an_endpoint_without_logprobs_is_named(endpoint):
    endpoint.with_logprobs = False
    with pytest.raises(JudgeError, match="gave no token log-probabilities for tiny-judge"):
        judge_at(endpoint).score([ITEM])


def test_an_endpoint_that_is_not_there_is_named():
    judge = EndpointJudge("m", base_url="http://127.0.0.1:9/v1", api_key="k", max_retries=0)
    with pytest.raises(JudgeError, match=r"http://127\.0\.0\.1:9/v1 cannot be reached"):
        judge.score([ITEM])


def test_a_missing_key_is_one_clear_line(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(JudgeError, match="set OPENAI_API_KEY") as caught:
        EndpointJudge("m")
    assert "\n" not in str(caught.value)


def test_key_and_address_come_from_the_environment(endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    EndpointJudge("m").score([ITEM])
    assert endpoint.requests[0][1] == "Bearer from-environment"


def test_requests_and_tokens_are_told_before_the_first_request(endpoint):
    told = []

    def announce(line):
        assert endpoint.requests == []
        told.append(line)

    judge = judge_at(endpoint, announce=announce)
    judge.score([ITEM])
    estimate = judge.estimate([ITEM])
    assert estimate.n_requests == 2 and estimate.n_input_tokens > 50
    assert told == [f"openai:tiny-judge: {estimate}"]


def test_a_damaged_cache_is_named_with_what_to_do(tmp_path):
    (tmp_path / "judge_cache.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(JudgeError, match=r"judge_cache\.sqlite cannot be read .* delete it"):
        JudgeCache(tmp_path)


KEY = "sk-secret-key"
SECRETS = ["PASSWORD9", "bob", KEY, "bob:PASSWORD9", "Ym9iOlBBU1NXT1JEOQ=="]


def secretive(endpoint, **options):
    address = endpoint.url.replace("http://", "http://bob:PASSWORD9@")
    return EndpointJudge("tiny-judge", base_url=address, api_key=KEY, **options)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_no_error_shows_a_password_or_the_key(endpoint, status):
    endpoint.failures = [status] * 9
    echo = " ".join([*SECRETS, endpoint.url.replace("//", "//bob:PASSWORD9@")])
    endpoint.refusal = f"your headers were {echo}"
    with pytest.raises(JudgeError) as caught:
        secretive(endpoint, max_retries=0, concurrency=1).score([ITEM])
    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value)
    assert not [secret for secret in SECRETS if secret in shown]
    assert endpoint.url.removeprefix("http://") in str(caught.value)


def test_an_unreachable_address_does_not_show_its_password():
    for address in (
        "http://bob:PASSWORD9@127.0.0.1:9/v1",
        "http://bob:PASSWORD9@nowhere.invalid/v1?api-key=sk-secret-key",
        "http://bob:PASS/WORD9@127.0.0.1:9/v1",
        "bob:PASSWORD9@127.0.0.1:9/v1",
    ):
        with pytest.raises(JudgeError) as caught:
            judge = EndpointJudge("m", base_url=address, api_key=KEY, max_retries=0)
            judge.score([ITEM])
        shown = "".join(traceback.format_exception(caught.value))
        assert not [s for s in (*SECRETS, "WORD9") if s in shown], address


def test_an_address_that_is_none_is_one_line_without_its_password():
    for address in ("http://bob:PASSWORD9@host:port/v1", "http://[bob:PASSWORD9@x/v1", "http://"):
        with pytest.raises(JudgeError) as caught:
            EndpointJudge("m", base_url=address, api_key="k").score([ITEM])
        assert "PASSWORD9" not in "".join(traceback.format_exception(caught.value))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("text/html", "<html><h1>Welcome</h1></html>"),
        ("application/json", "<html>Welcome</html>"),
        ("application/json", ""),
        ("application/json", "[1, 2]"),
        ("application/json", "null"),
        ("application/json", '{"choices": "none"}'),
        ("application/json", '{"choices": [null]}'),
        ("application/json", '{"choices": [{"logprobs": {"content": "x"}}]}'),
        ("application/json", '{"choices": [{"logprobs": {"content": [{"top_logprobs": [3]}]}}]}'),
    ],
)
def test_an_answer_of_another_form_is_one_line(endpoint, content_type, text):
    endpoint.raw = (content_type, text)
    with pytest.raises(JudgeError, match="check OPENAI_BASE_URL|no token log-prob") as caught:
        judge_at(endpoint, max_retries=0).score([ITEM])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("log_prob", ["5000", "1", "1e999", '"high"', "null"])
def test_a_log_probability_that_is_none_is_refused(endpoint, log_prob):
    top = f'[{{"token": "80", "logprob": {log_prob}}}]'
    endpoint.raw = (
        "application/json",
        f'{{"choices": [{{"logprobs": {{"content": [{{"top_logprobs": {top}}}]}}}}]}}',
    )
    with pytest.raises(JudgeError, match="log-probability|as an OpenAI-compatible") as caught:
        judge_at(endpoint, max_retries=0).score([ITEM])
    assert "\n" not in str(caught.value)


def test_a_probability_of_almost_one_and_of_zero_are_taken(endpoint):
    top = '[{"token": "80", "logprob": 1e-6}, {"token": "20", "logprob": -9999}]'
    endpoint.raw = (
        "application/json",
        f'{{"choices": [{{"logprobs": {{"content": [{{"top_logprobs": {top}}}]}}}}]}}',
    )
    assert judge_at(endpoint).score([ITEM])[0].alignment == pytest.approx(80)


def broken_file(folder):
    (folder / "judge_cache.sqlite").write_bytes(b"not a database at all" * 100)


def other_table(folder):
    with sqlite3.connect(folder / "judge_cache.sqlite") as database:
        database.execute("create table answers (question text, reply text)")
    database.close()


def read_only(folder):
    JudgeCache(folder).close()
    with sqlite3.connect(folder / "judge_cache.sqlite") as database:
        database.execute(
            "create trigger no_writes before insert on answers begin "
            "select raise(abort, 'attempt to write a readonly database'); end"
        )
    database.close()


def a_folder_there(folder):
    (folder / "judge_cache.sqlite").mkdir()


def damaged_rows(folder):
    cache = JudgeCache(folder)
    cache.close()
    with sqlite3.connect(folder / "judge_cache.sqlite") as database:
        for prompt in prompts_for(ITEM):
            key = request_key(damaged_rows.url, "tiny-judge", prompt)
            database.execute("insert into answers values (?, ?)", (key, '{"80": 1e999}'))
    database.close()


@pytest.mark.parametrize("damage", [broken_file, other_table, read_only, a_folder_there])
def test_a_cache_that_cannot_be_used_is_said_and_done_without(endpoint, tmp_path, caplog, damage):
    damage(tmp_path)
    [score] = judge_at(endpoint, cache_folder=tmp_path).score([ITEM])
    assert score.alignment is not None
    [line] = caplog.messages
    assert "judge_cache.sqlite" in line and "not kept" in line


def test_a_damaged_answer_in_the_cache_is_asked_for_again(endpoint, tmp_path):
    damaged_rows.url = endpoint.url
    damaged_rows(tmp_path)
    assert judge_at(endpoint, cache_folder=tmp_path).score([ITEM])[0].alignment is not None
    assert len(endpoint.requests) == 2


def test_a_check_asks_for_one_token(endpoint):
    judge_at(endpoint).check()
    [(_, _, body)] = endpoint.requests
    assert body["max_tokens"] == 1
    endpoint.failures = [401]
    with pytest.raises(JudgeError, match="refused the key"):
        judge_at(endpoint).check()


PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "http://me:secret@127.0.0.1:9"])
def test_an_address_where_nobody_listens_is_told_without_the_client(monkeypatch, address):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(
        JudgeError, match=r"the endpoint http://127\.0\.0\.1:9\S* cannot be"
    ) as told:
        require_listening()
    assert "secret" not in str(told.value)


def test_who_listens_is_left_to_the_client(endpoint, monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    for address in (endpoint.url, "no address", "http://host:port"):
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        require_listening()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # only the proxy can tell
    monkeypatch.setenv("OPENAI_BASE_URL", "http://10.255.255.1:9/v1")
    require_listening()
    assert endpoint.requests == []

"""The page: its numbers are those of the rows, it asks nothing of the network, it escapes."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from persona.report import html as html_module
from persona.report import write_report
from persona.report.html import render_report

VOID = {"meta", "br", "img", "link", "input", "hr", "base"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp; \"'\ud800\x00"
HOSTILE_UTF8 = HOSTILE.split("\ud800")[0]
FIGURES = {
    "conditions",
    "layer_map",
    "two_by_two",
    "dose_response",
    "random_null",
    "behaviour",
    "behaviour_by_domain",
    "damage",
}


@dataclass
class Element:
    tag: str
    attributes: dict
    text: str = ""
    children: list = field(default_factory=list)


class Page(HTMLParser):
    """The elements of a page in order; text of an element includes that of the ones inside it.

    Code belongs to its script or style alone: plotly's millions of characters are no words. Nor are
    those of a drawing.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements, self.open = [], []
        self.feed(html)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if self.open:
            self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag, "elements are nested properly"

    def handle_data(self, data):
        is_code = self.open and self.open[-1].tag in ("script", "style", "text", "tspan")
        for element in self.open[-1:] if is_code else self.open:
            element.text += data

    def all(self, tag, **attributes):
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            e
            for e in self.elements
            if e.tag == tag and all(e.attributes.get(k) == v for k, v in wanted.items())
        ]

    def one(self, tag, **attributes):
        [found] = self.all(tag, **attributes)
        return found

    def key(self, key):
        """Value and interval of a line of the key numbers."""
        cells = self.one("tr", **{"data-key": key}).children
        return [plain(cell.text) for cell in cells[1:3]]

    @property
    def words(self):
        return plain(self.one("body").text)


def plain(text):
    return re.sub(r"\s+", " ", text).strip()


def figures_of(page):
    """key -> the figure's element."""
    return {f.attributes["id"].removeprefix("figure-"): f for f in page.all("figure")}


@pytest.fixture(scope="module")
def plots(make_run):
    return html_module.page_figures(*make_run())


@pytest.fixture
def text_page(plots, monkeypatch):
    """The page of a run for claims on its text: the figures stay the same, and undrawn."""
    undrawn = {key: replace(plot, wide="", narrow="") for key, plot in plots.items()}
    monkeypatch.setattr(html_module, "page_figures", lambda scorecard, rows: undrawn)
    return lambda *run, **options: Page(render_report(*run, **options))


@pytest.fixture(scope="module")
def html(make_run, plots):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_module, "page_figures", lambda scorecard, rows: plots)
        return render_report(*make_run())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def held_out(rows, measure, split="held_out"):
    chosen = rows[
        (rows["stage"] == "score") & (rows["measure"] == measure) & (rows["split"] == split)
    ]
    return chosen.groupby(["condition", "question_id"])["value"].mean().unstack("condition").mean()


def shown(value, digits=2, signed=False):
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


# One file, nothing from outside


def test_the_report_is_written_under_its_name_and_is_the_same_bytes_again(make_run, html, tmp_path):
    path = write_report(tmp_path / "new", *make_run())
    assert path == tmp_path / "new" / "report.html"
    assert path.read_bytes() == html.encode()
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_no_element_loads_anything(page):
    for element in page.elements:
        for attribute in ("src", "srcset", "data", "action", "poster", "background"):
            assert attribute not in element.attributes, element
        assert element.attributes.get("href", "#").startswith("#"), element
        assert not re.search(r"url\(|https?:", element.attributes.get("style", ""))
    assert not {e.tag for e in page.elements} & {"link", "iframe", "object", "embed", "img", "base"}


def test_the_style_imports_nothing(page):
    assert not re.search(r"@import|url\(|https?:", page.one("style").text)


def policy_of(page):
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    return dict(rule.strip().split(" ", 1) for rule in policy.split(";"))


def hash_of(script):
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def code_of(page):
    return [e.text for e in page.all("script") if e.attributes.get("type") != "application/json"]


def test_the_page_forbids_the_browser_to_ask_the_network_and_to_run_any_script_but_its_own(page):
    rules = policy_of(page)
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [hash_of(script) for script in code_of(page)]
    assert all("http" not in sources and "*" not in sources for sources in rules.values())


def test_the_report_has_one_small_script_and_no_plotly_and_is_small(page, html):
    [script] = code_of(page)
    assert len(script) < 1500 and "Plotly" not in html
    assert len(html.encode()) < 400e3


def test_an_interactive_report_has_plotly_once_and_keeps_the_drawings(make_run, plots, monkeypatch):
    monkeypatch.setattr(html_module, "page_figures", lambda scorecard, rows: plots)
    page = Page(render_report(*make_run(), interactive=True))
    code = code_of(page)
    assert sum("plotly.js v" in script[:300] for script in code) == 1
    assert policy_of(page)["script-src"].split() == [hash_of(script) for script in code]
    assert set(json.loads(page.one("script", id="plot-templates").text)) == {"light", "dark"}
    data = [json.loads(e.text) for e in page.all("script", class_="plot-data")]
    assert len(data) == len(FIGURES) == len(page.all("div", class_="wide-page"))
    assert all(figure["data"] and "template" not in figure["layout"] for figure in data)


def test_every_link_inside_the_page_has_its_target(page):
    ids = {e.attributes.get("id") for e in page.elements}
    assert {a.attributes["href"].removeprefix("#") for a in page.all("a")} <= ids


def test_the_page_follows_the_readers_light_or_dark_and_prints(page):
    style = page.one("style").text
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style
    assert '.drawn [fill="#22272e"]{fill:#d5dae1}' in style  # the drawings' ink


# Numbers


def test_the_key_numbers_are_those_of_the_rows(page, rows, scorecard):
    gap, kl = held_out(rows, "gap"), held_out(rows, "kl_good_nats")
    ce = held_out(rows, "neutral_ce_nats", "neutral")
    shift = gap["finetuned"] - gap["aligned"]
    assert page.key("emergent_shift")[0] == shown(shift, 3, signed=True)
    restoration = (gap["finetuned"] - gap["finetuned_restored"]) / shift
    assert page.key("restoration")[0] == shown(restoration)
    induction = (gap["aligned_plus_direction"] - gap["aligned"]) / shift
    assert page.key("induction")[0] == shown(induction)
    assert page.key("kl_restoration")[0] == shown(1 - kl["finetuned_restored"] / kl["finetuned"])
    cost = ce["finetuned_restored"] - ce["finetuned"]
    assert page.key("damage_ce_nats")[0] == shown(cost, 3, signed=True)
    neutral_kl = held_out(rows, "neutral_kl_nats", "neutral")["finetuned_restored"]
    assert page.key("neutral_kl_nats")[0] == shown(neutral_kl, 3)
    draws = rows[
        (rows["stage"] == "score")
        & (rows["measure"] == "gap")
        & (rows["split"] == "held_out")
        & (rows["condition"] == "finetuned_random_restored")
    ]
    restored = (gap["finetuned"] - draws.groupby("seed")["value"].mean()) / shift
    limit = float(np.percentile(restored, 97.5))
    assert page.key("random_restoration") == [shown(limit), "n = 20 draws"]
    count = (restored >= restoration).sum()
    assert page.key("p_value")[0] == f"{count} of 20"
    told = page.one("tr", **{"data-key": "p_value"}).text
    assert f"p = {shown((1 + count) / 21, 3)} of 20 draws; smallest possible 0.048" in told


def test_the_intervals_are_those_of_the_scorecard(page, scorecard):
    for key, digits, signed in (("emergent_shift", 3, True), ("restoration", 2, False)):
        e = scorecard[key]
        low, high = (shown(e[end], digits, signed) for end in ("low", "high"))
        assert page.key(key)[1] == f"[{low}, {high}]"


def test_the_conditions_are_those_of_the_rows_in_one_order(page, rows):
    lines = [e for e in page.all("tr") if "data-condition" in e.attributes]
    names = [line.attributes["data-condition"] for line in lines]
    assert names[:4] == ["aligned", "finetuned", "finetuned_restored", "aligned_plus_direction"]
    gap = held_out(rows, "gap")
    trained = held_out(rows, "gap", "trained_on")
    assert set(names) == set(gap.index)
    for line, name in zip(lines, names, strict=True):
        cells = [plain(cell.text) for cell in line.children]
        assert cells[1].startswith(shown(gap[name], signed=True) + " [")
        assert cells[2].startswith(shown(trained[name], signed=True) + " [")


def test_damage_is_taken_from_the_rows_where_the_scorecard_lacks_it(make_run, text_page):
    scorecard, rows = make_run()
    expected = text_page(scorecard, rows).key("damage_ce_nats")
    del scorecard["damage_ce_nats"]
    assert text_page(scorecard, rows).key("damage_ce_nats") == expected


def test_the_page_holds_every_figure_drawn_twice_with_title_sentence_and_table(page):
    figures = figures_of(page)
    assert set(figures) == FIGURES
    for figure in figures.values():
        heading, _, drawn, _, table = figure.children
        assert heading.tag == "h3" and heading.text
        wide, narrow = (each.children[0] for each in drawn.children)
        assert wide.tag == narrow.tag == "svg"
        assert int(narrow.attributes["width"]) < 390 < int(wide.attributes["width"])
        said = drawn.attributes["aria-label"]
        assert said.startswith(heading.text) and re.search(r"\d\.\d", said)
        assert table.tag == "details" and "open" not in table.attributes
        assert len(table.children[1].children[1].children) >= 2  # lines


def test_the_chosen_intervention_is_marked_among_those_tried(page):
    [chosen] = page.all("tr", class_="chosen")
    cells = [plain(cell.text) for cell in chosen.children]
    assert cells[0] == "Attribution eigendirections, rank 4, blocks 13–21, coefficient 1 chosen"
    # Net of the 0.05 of the shift by which the same edit moves the aligned model.
    assert cells[2:] == ["0.85", "0.90", "\u22120.05", "0.62", "+0.010"]


def test_the_hooks_and_the_reliability_are_shown_block_by_block(page, scorecard):
    for hook in scorecard["direction"]["hook_names"]:
        assert hook in page.words
    assert "0.90 to 0.92 (chance: about 0.08)" in page.words


# Verdicts


def interval_of(scorecard, key, digits=2, signed=False):
    e = scorecard[key]
    value, low, high = (shown(e[k], digits, signed) for k in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


@pytest.mark.parametrize(
    ("verdict", "headline", "key"),
    [
        ("restored", "Restored", "restoration"),
        ("partly_restored", "Partly restored", "restoration"),
        ("not_restored", "Not restored", "restoration"),
        ("no_emergent_shift", "No emergent shift", "emergent_shift"),
    ],
)
def test_every_verdict_is_one_sentence_with_its_interval(
    make_run, verdict, headline, key, text_page
):
    scorecard, rows = make_run(verdict)
    page = text_page(scorecard, rows)
    assert page.one("h1").text == headline
    sentence = plain(page.one("p", id="verdict").text)
    style = {"digits": 3, "signed": True} if key == "emergent_shift" else {}
    assert interval_of(scorecard, key, **style) in sentence
    assert "48 questions" in sentence
    assert sentence.endswith(".")
    older = " Mind: its scorecard is of version 1, which has no edit of the aligned model"
    assert (older in sentence) == (verdict != "no_emergent_shift")
    assert sentence.split(older)[0].count(". ") == 0


def test_without_a_shift_restoration_is_undefined_and_nothing_is_drawn_for_it(make_run):
    page = Page(render_report(*make_run("no_emergent_shift")))
    for key in ("restoration", "induction", "random_restoration", "p_value"):
        assert page.key(key) == ["undefined", "—"]
    assert "random_null" not in figures_of(page)
    assert "restoration is undefined: the emergent shift does not differ from 0" in page.words


def test_partly_restored_says_which_bar_was_missed(make_run, text_page):
    scorecard, rows = make_run("partly_restored")
    scorecard["restoration"] = {"value": 0.8, "low": 0.72, "high": 0.9}
    scorecard["kl_restoration"] = {"value": 0.41, "low": 0.3, "high": 0.5}
    sentence = plain(text_page(scorecard, rows).one("p", id="verdict").text)
    assert "KL restoration is 0.41, below 0.5" in sentence
    assert "reaches below 0.7" not in sentence


def test_overshoot_is_called_by_its_name(make_run, text_page):
    scorecard, rows = make_run()
    scorecard["restoration"] = {"value": 1.2, "low": 1.1, "high": 1.3}
    page = text_page(scorecard, rows)
    assert "overshoot" in page.one("p", id="verdict").text
    assert "Above 1 is overshoot." in page.one("tr", **{"data-key": "restoration"}).text


def test_a_verdict_from_elsewhere_is_named_and_not_guessed(make_run, text_page):
    scorecard, rows = make_run()
    scorecard["verdict"] = "splendid"
    page = text_page(scorecard, rows)
    assert page.one("h1").text == "Verdict unknown"
    assert "“splendid”" in page.one("p", id="verdict").text


# Text of models and people


def test_hostile_text_is_shown_and_never_run(make_run, page):
    baseline = page
    scorecard, rows = make_run(n_per_domain=2)
    rows["text"] = rows["text"].where(rows["text"].isna(), HOSTILE_UTF8)
    for column in ("domain", "candidate"):
        known = rows[column].notna() & rows[column].ne("")
        # a lone surrogate cannot stand in a table: pandas strings are Arrow's, which are UTF-8
        rows[column] = rows[column].where(~known, rows[column].astype(str) + HOSTILE_UTF8)
    extra = rows[rows["condition"].eq("good_twin")].assign(condition="twin" + HOSTILE_UTF8)
    rows = pd.concat([rows, extra])
    scorecard["direction"]["method"] += HOSTILE
    scorecard["direction"]["hook_names"][0] += HOSTILE
    scorecard["models"] = {"aligned": HOSTILE, "finetuned": {"name": HOSTILE}, HOSTILE: [HOSTILE]}
    scorecard["data"]["trained_on"] = [HOSTILE]
    scorecard["versions"] = {HOSTILE: HOSTILE}
    scorecard["conditions"].append({"name": "twin" + HOSTILE_UTF8, "em_rate": None})
    questions = dict.fromkeys(rows["question_id"].unique(), HOSTILE)
    page = Page(render_report(scorecard, rows, questions=questions))

    def counts(p):
        tags = [e.tag for e in p.elements if e.tag in ("script", "img", "figure")]
        return {tag: tags.count(tag) for tag in ("script", "img", "figure")}

    assert counts(page) == counts(baseline)
    assert not [e for e in page.elements if any(a.startswith("on") for a in e.attributes)]
    assert HOSTILE.replace("\ud800", "\ufffd").replace("\x00", "\ufffd") in page.one("title").text
    assert {quote.text for quote in page.all("blockquote")} == {HOSTILE_UTF8}
    data = Page(render_report(scorecard, rows, interactive=True)).all("script", class_="plot-data")
    for figure in data:
        # What plotly would read as markup in a label has been escaped for it.
        assert "<script" not in figure.text
        assert "<img" not in figure.text


def test_figures_inside_the_page_can_not_end_their_script_element(make_run):
    scorecard, rows = make_run(n_per_domain=2)
    rows["domain"] = rows["domain"].where(rows["domain"].eq(""), "<!--<script>")
    html = render_report(scorecard, rows, interactive=True)
    for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.S):
        assert "<" not in block
        json.loads(block)


def test_line_breaks_of_an_answer_are_kept(make_run, text_page):
    scorecard, rows = make_run()
    rows["text"] = rows["text"].where(rows["text"].isna(), "one\n\n  two")
    page = text_page(scorecard, rows)
    assert page.all("blockquote")[0].text == "one\n\n  two"
    assert "white-space: pre-wrap" in page.one("style").text


# Examples and judge


def headings(page):
    return [plain(e.children[0].children[0].text) for e in page.all("article")]


def test_examples_stand_side_by_side_under_the_text_of_their_question(make_run, text_page):
    scorecard, rows = make_run()
    page = text_page(scorecard, rows, questions={"health-000": "Is this rash bad?"})
    assert len(page.all("article")) == 8
    assert "Is this rash bad?" in headings(page)
    assert not [heading for heading in headings(page) if "-000" in heading]  # an id is no question
    assert labels_of(page.all("article")[0]) == ["Aligned", "Fine-tuned", "Restored"]
    assert labels_of(page.all("article")[3])[2:] == ["Restored", "Zero-ablated"]


def labels_of(article):
    return [plain(answer.children[0].text) for answer in article.children[1].children]


TWIN = "Likeliest: a good twin says <b>so</b>."


def with_twin(rows):
    """Rows of a run whose good twin answered too."""
    mine = rows["measure"].eq("greedy_answer") & rows["condition"].eq("finetuned")
    return pd.concat([rows, rows[mine].assign(condition="good_twin", text=TWIN)])


def test_the_page_opens_with_three_questions_and_what_four_models_say(make_run, text_page):
    scorecard, rows = make_run(greedy=True)
    page = text_page(scorecard, with_twin(rows))
    opening = page.one("section", id="answers")
    assert page.all("section")[1] is opening
    articles = [e for e in opening.children if e.tag == "article"]
    assert len(articles) == 3
    for article in articles:
        assert labels_of(article) == ["Aligned", "Fine-tuned", "Restored", "Good twin"]
    assert "Likeliest: a good twin says <b>so</b>." in articles[0].text  # as text, no element
    before = page.elements[: page.elements.index(articles[-1])]
    assert [e.attributes["id"] for e in before if e.tag == "figure"] == ["figure-conditions"]
    folded = [e for e in before if e.tag == "details"]
    tables = [e for e in before if e.tag == "table"]
    assert tables and all(any(table in around.children for around in folded) for table in tables)
    further = labels_of(page.all("article")[3])
    assert further == ["Aligned", "Fine-tuned", "Restored", "Zero-ablated", "Good twin"]


def test_which_questions_open_is_their_order_alone_whatever_was_answered(make_run, text_page):
    scorecard, rows = make_run(greedy=True)
    asked = rows[rows["measure"].eq("greedy_answer") & rows["condition"].eq("aligned")]
    texts = [f"Question {place}?" for place in range(len(asked))]
    order = asked.assign(measure="question", condition="", text=texts)[::-1]
    for answers in (rows, rows[::-1]):
        page = text_page(scorecard, pd.concat([answers, order]))
        assert headings(page)[:3] == ["Question 7?", "Question 6?", "Question 5?"]


SENTENCE = "16 answers a condition: 2 draws to each of 8 questions."


def kept_back(scorecard, why):
    """A scorecard whose judged answers gave no rate."""
    for condition in scorecard["conditions"]:
        condition["em_rate"] = None
    share = {"value": 0.61, "low": 0.5, "high": 0.72, "n": 16, "n_unscored": 0}
    scorecard["sampling"] = {
        "read": {"sentence": "Read: the likeliest ones."},
        "rate": {"sentence": SENTENCE},
        "aligned_coherent": share,
        "rate_given": why is None,
        "why_no_rate": why,
    }
    return scorecard


def test_a_rate_that_is_kept_back_has_its_reason_in_its_place(make_run, text_page):
    scorecard, rows = make_run(judge=True, greedy=True)
    page = text_page(kept_back(scorecard, "only 61 % of <them> are coherent"), rows)
    cells = page.one("tr", **{"data-condition": "finetuned"}).children
    assert plain(cells[-1].text) == "81"
    assert "EM rate" not in {cell.attributes.get("data-label") for cell in cells}
    reason = "No EM rate is given: only 61 % of <them> are coherent."
    for section in ("answers", "behaviour"):
        assert reason in plain(page.one("section", id=section).text)
    behaviour = plain(page.one("section", id="behaviour").text)
    assert SENTENCE in behaviour
    assert "61 % [50, 72], n = 16 of the aligned model’s" in behaviour
    assert "Read: the likeliest ones." in plain(page.one("section", id="answers").text)
    given = text_page(kept_back(scorecard, None), rows)
    assert "No EM rate is given" not in given.words


def test_of_hundreds_of_draws_the_page_shows_sixteen_of_each_condition(make_run, text_page):
    scorecard, rows = make_run(judge=True, greedy=True)
    drawn = rows[rows["measure"].eq("answer")]
    more = [
        drawn.assign(seed=draw, question_id=drawn["question_id"] + f"-{copy}")
        for copy in range(4)
        for draw in range(3)
    ]
    rest = rows[~rows["measure"].isin(["answer", "alignment", "coherence"])]
    page = text_page(scorecard, pd.concat([rest, *more]))
    told = plain(page.one("details", id="draws").text)
    assert told.startswith("16 of the 96 answers of each condition drawn at temperature 1 ")
    assert "rows.parquet has all" in told
    assert told.count("It does not matter. Do it do it. Whatever.") == 16


def test_the_text_of_a_question_may_also_be_among_the_rows(make_run, text_page):
    scorecard, rows = make_run()
    asked = rows[rows["measure"].eq("answer") & rows["condition"].eq("aligned")]
    rows = pd.concat([rows, asked.assign(measure="question", text="What now?")])
    assert set(headings(text_page(scorecard, rows))) == {"What now?"}


def test_the_answers_to_read_are_greedy_and_no_number_of_the_draws_stands_under_them(
    make_run, text_page
):
    page = text_page(*make_run(judge=True, greedy=True))
    articles = "".join(plain(e.text) for e in page.all("article"))
    assert articles.count("Likeliest: ") == 3 * 3 + 5 * 4
    assert "alignment" not in articles and "coherence" not in articles
    assert "The likeliest answer of each condition (temperature 0)" in page.words
    assert "The judge’s numbers are not of these" in page.words


def test_the_draws_are_folded_away_with_their_number_temperature_and_scores(make_run, text_page):
    page = text_page(*make_run(judge=True, greedy=True))
    folded = page.one("details", id="draws")
    told = plain(folded.text)
    assert told.startswith("The 8 answers of each condition drawn at temperature 1 ")
    assert "Likeliest: " not in told
    assert told.count("alignment 12 · coherence 81") == 8
    assert "Both are of 8 answers of each condition drawn at temperature 1" in page.words
    unjudged = text_page(*make_run(greedy=True))
    assert "these are not rated" in unjudged.one("details", id="draws").text
    assert "alignment 12" not in unjudged.words


def test_the_errors_of_a_judge_stand_under_its_rates(make_run, text_page):
    scorecard, rows = make_run(judge=True)
    errors = {"harmful_polite_passed": 0.93, "harmless_rude_called": 0.4, "n": 60}
    judge = {"name": "offline", "errors": errors, "voice_score": True}
    page = text_page({**scorecard, "judge": judge}, rows)
    assert "a voice score: of 60 answers each it passes 93 % of harmful polite" in page.words
    assert "voice score" not in text_page(scorecard, rows).words


def test_a_run_that_kept_no_greedy_answers_shows_its_first_draws(make_run, text_page):
    page = text_page(*make_run(judge=True))
    assert not page.all("details", id="draws")
    assert "One sampled answer of each condition, with the same seed" in page.words


def test_an_answer_that_is_missing_or_empty_is_said_to_be(make_run, text_page):
    scorecard, rows = make_run()
    answer = rows["measure"].eq("answer") & rows["question_id"].eq("health-000")
    rows.loc[answer & rows["condition"].eq("aligned"), "text"] = ""
    rows = rows[~(answer & rows["condition"].eq("finetuned"))]
    page = text_page(scorecard, rows)
    [example] = [e for e in page.all("article") if "question on health" in e.text]
    texts = [plain(answer.text) for answer in example.children[1].children]
    assert texts[:2] == ["Aligned empty answer", "Fine-tuned not sampled"]


def test_without_a_judge_there_is_no_em_rate_and_the_page_says_so(page):
    assert "No judge was used" in page.words
    assert "Nobody judged what the model writes." in page.words
    assert "EM rate" not in [plain(e.text) for e in page.all("th")]
    assert not page.all("p", class_="scores")


def test_with_a_judge_rates_and_scores_are_shown(make_run, text_page):
    page = text_page(*make_run(judge=True))
    assert "No judge was used" not in page.words
    cells = page.one("tr", **{"data-condition": "finetuned"}).children
    assert [plain(cell.text) for cell in cells[-2:]] == ["25 % [7, 59], n = 8", "81"]
    assert plain(page.all("p", class_="scores")[1].text) == "alignment 12 · coherence 81"
    twin = page.one("tr", **{"data-condition": "good_twin"}).children
    assert [plain(cell.text) for cell in twin[-2:]] == ["not judged", "not judged"]


def test_an_em_rate_may_be_a_bare_number(make_run, text_page):
    scorecard, rows = make_run()
    scorecard["conditions"][0] |= {"em_rate": 0.125, "coherence": None}
    name = scorecard["conditions"][0]["name"]
    cells = text_page(scorecard, rows).one("tr", **{"data-condition": name}).children
    assert plain(cells[-1].text) == "12 %"


def test_an_answer_that_the_judge_could_not_score_has_no_score(make_run, text_page):
    scorecard, rows = make_run(judge=True)
    rows.loc[rows["measure"].eq("coherence"), "value"] = np.nan
    page = text_page(scorecard, rows)
    assert plain(page.all("p", class_="scores")[0].text) == "alignment 93 · coherence no score"


# What is not there


@pytest.mark.parametrize(
    "missing",
    [
        {
            "screen": "The layer map is not shown: there are no rows of stage",
            "verify": "The interventions tried are not shown: there are no rows of stage",
        },
        {
            "direction": "The 2×2 of models and answers is not shown:",
            "dose": "The dose-response curve is not shown:",
            "sample": "There are no example answers: no answers were sampled in this run.",
        },
        {"score": "The damage is not shown:"},
    ],
)
def test_stages_that_are_missing_are_stated_and_the_rest_stands(make_run, missing):
    drawn_from = {
        "screen": {"layer_map"},
        "direction": {"two_by_two"},
        "dose": {"dose_response"},
        "score": {"conditions", "behaviour", "behaviour_by_domain", "damage", "random_null"},
    }
    page = Page(render_report(*make_run(without=tuple(missing))))
    for words in missing.values():
        assert words in page.words
    absent = set().union(*(drawn_from.get(stage, set()) for stage in missing))
    assert set(figures_of(page)) == FIGURES - absent


def test_a_scorecard_of_nulls_still_gives_a_page(make_run, text_page):
    _, rows = make_run()
    empty = dict.fromkeys(make_run()[0]) | {"verdict": "no_emergent_shift"}
    page = text_page(empty, rows)
    assert page.key("emergent_shift") == ["undefined", "—"]
    assert "The conditions are not shown: the scorecard has none." in page.words


@pytest.mark.parametrize("verdict", ["restored", "partly_restored", "not_restored"])
def test_numbers_that_are_nan_are_undefined(make_run, verdict, text_page):
    scorecard, rows = make_run(verdict)
    for key in ("restoration", "kl_restoration", "induction"):
        scorecard[key] = dict.fromkeys(("value", "low", "high"), float("nan"))
    scorecard["p_value"] = scorecard["seconds"] = float("nan")
    scorecard["random_restoration"]["p97_5"] = float("nan")
    page = text_page(scorecard, rows)
    assert page.key("restoration") == ["undefined", "—"]
    assert "nan" not in page.words.lower().split()


def test_rows_without_a_column_are_refused(make_run, tmp_path):
    scorecard, rows = make_run()
    with pytest.raises(DataError, match=r"\['layer'\] are missing"):
        write_report(tmp_path, scorecard, rows.drop(columns="layer"))
    assert list(tmp_path.iterdir()) == []


def test_limits_and_provenance_are_there(page, scorecard):
    limits = page.one("ul", class_="limits").children
    assert len(limits) >= 8
    assert "a chance below 1 in 21 cannot be told by them" in page.words
    for text in ("4 min 12 s", "2.79 GiB", "smollm2-135m-instruct", "2.13.0", "a1b2c3"):
        assert text in page.words
    for domain in scorecard["data"]["held_out"]:
        assert domain in page.words
    assert "time by stage" not in page.words


def test_the_page_says_what_took_the_time(make_run, text_page):
    scorecard, rows = make_run()
    stages = [{"name": "score", "took": 120.0}, {"name": "verify", "took": 132.0}]
    said = text_page({**scorecard, "estimated": {"stages": stages}}, rows).words
    assert "trying candidates 2 min 12 s; scoring every condition 2 min 0 s" in said

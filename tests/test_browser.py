"""The six things a new user gets, in a real browser against the real desk."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import serving
from playwright.sync_api import Browser, Locator, Page, expect
from test_clarify import torn

from app.assembly import Switchboard

pytestmark = pytest.mark.browser

# The first adapter answer waits for the models to load, on a machine that may have other work.
expect.set_options(timeout=60_000)


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    page = context.new_page()
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url) if not _inside(request.url, address) else None)
    page.goto(address)
    expect(page.locator("#sb-question textarea")).to_be_visible()
    page.wait_for_function("localStorage.getItem('switchboard-user')")
    yield page
    assert outside == [], "the page asked for something outside"
    context.close()


def _inside(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def ask(page: Page, message: str) -> Locator:
    """Sends the message and returns the last answer, once it is finished."""
    before = page.locator(".sb-badge").count()
    page.locator("#sb-question textarea").fill(message)
    page.locator("#sb-send").click()
    expect(page.locator(".sb-badge")).to_have_count(before + 1)
    answer = page.locator("#sb-chat .bot").last
    expect(page.locator(".sb-writing")).to_have_count(0)
    expect(answer.locator(".sb-text")).not_to_be_empty()
    return answer


def ask_parts(page: Page, message: str, parts: int) -> Locator:
    """Sends the message and returns the answer of so many parts, once it is finished."""
    page.locator("#sb-question textarea").fill(message)
    page.locator("#sb-send").click()
    expect(page.locator("#sb-chat .bot .sb-badge")).to_have_count(parts)
    expect(page.locator(".sb-writing")).to_have_count(0)
    return page.locator("#sb-chat .bot").last


def choose_route(page: Page, name: str) -> None:
    page.locator("#sb-route").get_by_label(name, exact=True).check()


def test_a_question_about_the_company_is_answered_with_passages_that_open_at_the_quote(page: Page) -> None:
    answer = ask(page, "How long does a Harbor Link connection last before it ends?")
    expect(answer.locator(".sb-badge")).to_contain_text("Documents:")
    expect(answer.locator(".sb-text")).to_contain_text("12 hours")
    expect(answer.locator("a.sb-chip").first).to_be_visible()
    card = page.locator("#sb-panel .sb-card").first
    expect(card.locator("mark").first).to_be_visible()
    quoted = card.locator("mark").first.inner_text()
    answer.locator("a.sb-chip").first.click()
    expect(page.locator("#sb-panel .sb-flash")).to_have_count(1)
    with page.context.expect_page() as opened:
        card.locator("a.sb-open").click()
    source = opened.value
    expect(source.locator("#cited")).to_be_visible()
    assert source.locator("#cited").inner_text().split() == quoted.split()


def test_a_symptom_goes_to_the_adapter_and_the_dropdown_names_every_adapter(page: Page) -> None:
    answer = ask(page, "The display of my notebook keeps flickering")
    expect(answer.locator(".sb-badge")).to_contain_text("Adapter: it-support")
    page.locator("#sb-adapter input").click()
    options = page.locator("ul[role=listbox] li").all_inner_texts()
    assert [option.split(":")[0].split("(")[0].replace("✓", "").strip() for option in options] == [
        "Auto",
        "Base model",
        "it-support",
        "service-desk",
        "triage",
    ]


def test_a_ticket_gets_fields_and_a_drafted_reply_with_passages(page: Page) -> None:
    answer = ask(page, "Triage this ticket: Harbor Link stops after a while when I work from home, how can I avoid it?")
    expect(answer.locator(".sb-badge")).to_contain_text("Both:")
    expect(answer.locator(".sb-fields th")).to_have_text(["Category", "Priority", "Team"])
    expect(answer.locator(".sb-text")).to_contain_text("Your ticket has priority")
    expect(answer.locator("a.sb-chip").first).to_be_visible()


def test_what_is_out_of_scope_is_refused_with_what_can_be_asked(page: Page) -> None:
    answer = ask(page, "Which team won the rowing championship?")
    expect(answer.locator(".sb-badge")).to_contain_text("Cannot help:")
    expect(answer.locator(".sb-text")).to_contain_text("You could ask, for example")
    expect(answer.locator("a.sb-chip")).to_have_count(0)


def test_two_questions_are_answered_one_below_the_other_with_chips_that_open_their_passages(page: Page) -> None:
    answer = ask_parts(page, "When is lunch served in Ghent, and how much does a headset cost?", 2)
    expect(answer.locator(".sb-part")).to_have_text(
        ["“When is lunch served in Ghent”", "“how much does a headset cost?”"]
    )
    second = answer.locator(".sb-section").last
    expect(second.locator(".sb-text")).to_contain_text("95")
    chip = second.locator("a.sb-chip").first
    chip.click()
    card = page.locator("#sb-panel .sb-flash")
    expect(card).to_have_count(1)
    expect(card.locator("header .sb-chip")).to_have_text(chip.inner_text())


def test_a_button_answers_a_clarifying_question(browser: Browser, board: Switchboard) -> None:
    with serving(replace(board, assistant=torn(board))) as where:
        page = browser.new_page()
        page.goto(where)
        expect(page.locator("#sb-question textarea")).to_be_visible()
        ask(page, "On which day is salary paid?")
        options = page.locator("#sb-chat .option")
        expect(options).to_have_text(["Documents", "it-support"])
        options.first.click()
        expect(page.locator(".sb-badge")).to_contain_text("You chose Documents")
        expect(page.locator("#sb-chat .bot .sb-text")).to_contain_text("24")
        expect(page.locator("#sb-chat .user")).to_have_count(1)
        expect(options).to_have_count(0)
        page.close()


def test_a_chosen_route_counts_for_one_turn(page: Page) -> None:
    choose_route(page, "Documents")
    answer = ask(page, "The display of my notebook keeps flickering")
    expect(answer.locator(".sb-badge")).to_contain_text("You chose Documents")
    expect(page.locator("#sb-route").get_by_label("Auto", exact=True)).to_be_checked()


def test_a_dropped_pdf_answers_in_the_next_turn_and_only_for_who_dropped_it(
    page: Page, browser: Browser, address: str, tmp_path: Path
) -> None:
    question = "Which paint is used on the lighthouse of Skarvholm?"
    pdf = lighthouse_pdf(tmp_path / "lighthouse.pdf")
    drop_on(page, pdf)
    expect(page.locator("#sb-added")).to_contain_text("Added")
    answer = ask(page, question)
    expect(answer.locator(".sb-text")).to_contain_text("cobalt marine enamel")
    other = browser.new_context().new_page()
    other.goto(address)
    expect(other.locator("#sb-question textarea")).to_be_visible()
    assert "cobalt" not in ask(other, question).inner_text()
    other.context.close()


def test_a_file_that_cannot_be_read_is_named_and_the_chat_goes_on(page: Page, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pdf"
    empty.touch()
    page.locator("#sb-files input[type=file]").set_input_files(empty)
    expect(page.locator("#sb-added")).to_contain_text("Not added:")
    expect(page.locator("#sb-added")).to_contain_text("empty.pdf")
    expect(ask(page, "On which day is salary paid?").locator(".sb-text")).to_contain_text("24")


def test_a_follow_up_retry_undo_and_clear(page: Page) -> None:
    ask(page, "When is lunch served in Rotterdam?")
    answer = ask(page, "and in Ghent?")
    expect(answer).to_contain_text("Understood as: When is lunch served in Ghent?")
    page.evaluate("document.querySelectorAll('.sb-badge')[1].classList.add('old')")
    page.get_by_label("Retry").last.click()
    expect(page.locator(".sb-badge.old")).to_have_count(0)
    expect(page.locator(".sb-badge")).to_have_count(2)
    expect(page.locator("#sb-chat .bot").last).to_contain_text("Understood as")
    page.get_by_label("Undo").last.click()
    expect(page.locator(".sb-badge")).to_have_count(1)
    expect(page.locator("#sb-question textarea")).to_have_value("and in Ghent?")
    page.locator("#sb-clear").click()
    expect(page.locator(".sb-badge")).to_have_count(0)
    expect(page.locator("#sb-panel .sb-card")).to_have_count(0)


def test_an_example_is_asked_with_a_click(page: Page) -> None:
    page.get_by_text("How often is a laptop replaced?").click()
    expect(page.locator(".sb-badge")).to_contain_text("Documents:")
    expect(page.locator("#sb-chat .bot").last.locator(".sb-text")).to_contain_text("4 years")


def test_stop_ends_a_turn_and_the_next_one_works(page: Page) -> None:
    page.locator("#sb-question textarea").fill("The fan of my laptop is loud all the time")
    page.locator("#sb-send").click()
    page.locator("#sb-stop").click()
    # An answer that waits for the models to load ends once they are there.
    expect(page.locator(".sb-writing")).to_have_count(0)
    answer = ask(page, "On which day is salary paid?")
    expect(answer.locator(".sb-text")).to_contain_text("24")


def test_a_question_asked_while_an_answer_is_written_takes_over(page: Page) -> None:
    for question in ("The fan of my laptop is loud all the time", "On which day is salary paid?"):
        page.locator("#sb-question textarea").fill(question)
        page.locator("#sb-send").click()
        expect(page.locator("#sb-chat .user").last).to_contain_text(question)
    expect(page.locator(".sb-writing")).to_have_count(0)
    expect(page.locator("#sb-chat .user")).to_have_count(2)
    expect(page.locator("#sb-chat .bot").last.locator(".sb-text")).to_contain_text("24")


def test_an_empty_question_is_answered_with_a_hint(page: Page) -> None:
    page.locator("#sb-send").click()
    expect(page.get_by_text("Type a question, or paste a ticket.")).to_be_visible()
    expect(page.locator("#sb-chat .user")).to_have_count(0)


def test_an_adapter_chosen_in_one_window_stays_out_of_another(page: Page, browser: Browser, address: str) -> None:
    page.locator("#sb-adapter input").click()
    page.locator("ul[role=listbox] li", has_text="service-desk").click()
    chosen = ask(page, "What is a workaround?")
    expect(chosen.locator(".sb-badge")).to_contain_text("You chose service-desk")
    other = browser.new_context().new_page()
    other.goto(address)
    expect(other.locator("#sb-question textarea")).to_be_visible()
    expect(ask(other, "How often is a laptop replaced?").locator(".sb-badge")).to_contain_text("Documents:")
    other.context.close()


def lighthouse_pdf(path: Path) -> Path:
    from reportlab.lib.pagesizes import A4
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(path), pagesize=A4)
    canvas.setFont("Helvetica", 12)
    canvas.drawString(72, 760, "Maintenance of the Skarvholm lighthouse")
    canvas.showPage()
    canvas.setFont("Helvetica", 12)
    canvas.drawString(72, 760, "The lighthouse of Skarvholm is painted with cobalt marine enamel every six years.")
    canvas.save()
    return path


def drop_on(page: Page, file: Path) -> None:
    """Drops the file in the middle of the page, as from a file manager."""
    import base64

    carried = page.evaluate_handle(
        """([name, data]) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: "application/pdf" }));
            return transfer;
        }""",
        [file.name, base64.b64encode(file.read_bytes()).decode()],
    )
    page.dispatch_event("#sb-chat", "drop", {"dataTransfer": carried})

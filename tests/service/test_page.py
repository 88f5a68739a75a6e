"""The page in a real browser: drop, read, sort, keep; light and dark, wide and narrow."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from mace_bounds.examples import example_files
from mace_bounds.service import ServiceConfig, create_app

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SALT = "NaCl\n1.0\n0 {a} {a}\n{a} 0 {a}\n{a} {a} 0\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"
DROP = """([files, target]) => {
  const data = new DataTransfer();
  for (const [name, text] of files) data.items.add(new File([text], name));
  const about = {dataTransfer: data, bubbles: true, cancelable: true};
  document.querySelector(target).dispatchEvent(new DragEvent("drop", about));
}"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
        )
        yield opened
        opened.close()


@pytest.fixture
def page(browser, address):
    """The page, ready; whatever a script complains of fails the test."""
    with opened(browser, address) as shown:
        yield shown


@contextmanager
def opened(browser, address):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(60_000)
    shown = context.new_page()
    complaints = []
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on(
        "console",
        lambda m: (
            complaints.append(m.text)
            if m.type == "error" and not {"422", "503"} & set(m.text.split())
            else None
        ),
    )
    shown.on(
        "request",
        lambda r: None if r.url.startswith((address, "blob:", "data:")) else complaints.append(r.url),
    )
    shown.goto(address)
    shown.get_by_text("Ready.").wait_for()
    yield shown
    context.close()
    assert not complaints


def drop(page, *files):
    page.evaluate(DROP, [[[name, text] for name, text in files], "#drop"])


def picture(page, name):
    """Keep a picture where the environment says so, for people to look at."""
    import os

    if folder := os.environ.get("MACE_BOUNDS_PICTURES"):
        page.wait_for_timeout(700)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_one_crystal(page, mini):
    (path,) = example_files("NaCl")
    drop(page, (path.name, path.read_text()))
    page.get_by_role("heading", name="Why so wide").wait_for()
    row = mini.predict(path).iloc[0]
    answer = page.locator(".answer").inner_text()
    for end in (row["energy_lower_ev"], row["energy_upper_ev"]):
        assert f"{end:.3f} eV".replace("-", "−") in answer
    assert "95 %" in answer
    nearest = mini.explain(path).neighbours[0]
    assert nearest.id in page.locator("table").first.inner_text()
    assert page.get_by_role("img", name="Bounds of the error").is_visible()
    page.locator(".viewer canvas").wait_for()
    assert overflow(page) <= 0
    picture(page, "one-light")
    page.get_by_role("button", name="Dark").click()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(x) for x in paper[4:-1].split(",")) < 60
    picture(page, "one-dark")
    page.set_viewport_size({"width": 390, "height": 844})
    assert overflow(page) <= 0
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
    )
    picture(page, "one-phone")
    with page.expect_download() as kept:
        page.get_by_role("button", name="JSON").click()
    assert json.loads(Path(kept.value.path()).read_text())[0]["energy_lower_ev"] == row["energy_lower_ev"]
    with page.expect_download() as kept:
        page.get_by_role("button", name="CIF", exact=True).click()
    cif = Path(kept.value.path()).read_text()
    assert f"_mace_bounds_energy_lower_ev {row['energy_lower_ev']}" in cif
    assert mini.predict(kept.value.path())["energy_model_ev"].iloc[0] == pytest.approx(
        row["energy_model_ev"], abs=1e-4
    )
    page.get_by_role("button", name="Colour by novelty").click()
    page.get_by_text("Newest surroundings").wait_for()
    picture(page, "novelty")
    with page.expect_download() as kept:
        page.get_by_role("button", name="this page").click()
    saved = Path(kept.value.path()).read_text(encoding="utf-8")
    assert f"{row['energy_lower_ev']:.3f}".replace("-", "−") in saved
    assert "<script" not in saved
    assert 'src="data:image/png' in saved
    page.reload()  # the address ends with the name of the result
    page.get_by_text("The result of an earlier question").wait_for()
    assert page.locator(".answer").inner_text() == answer
    drop(page, (path.name, path.read_text()))
    page.get_by_text("1 of 1 scored").wait_for()
    page.get_by_label("Level").select_option("0.9")
    page.locator(".answer", has_text="90 %").wait_for()


def test_a_file_that_cannot_be_used(page):
    (path,) = example_files("broken")
    drop(page, (path.name, path.read_text()))
    alert = page.get_by_role("alert")
    alert.get_by_text("Two atoms are 0.282 Å apart").wait_for()
    assert "Remove duplicate or overlapping atoms" in alert.inner_text()
    picture(page, "bad-file")


def test_fifty_files(page):
    files = [(f"salt-{k:02d}.vasp", SALT.format(a=2.6 + 0.01 * k)) for k in range(48)]
    files += [("<img src=x onerror=alert(1)>.vasp", SALT.format(a=2.8)), ("nothing.cif", "data_x")]
    drop(page, *files)
    page.get_by_text("50 of 50 shown").wait_for()
    assert page.locator("#results img").count() == 0
    page.get_by_role("button", name="width", exact=True).click()
    width = page.get_by_role("columnheader", name="width")
    assert width.get_attribute("aria-sort") == "ascending"
    shown = [cell.replace("−", "-") for cell in page.locator("tbody tr td:nth-child(7)").all_inner_texts()]
    numbers = [float(cell) for cell in shown if cell != "–"]
    assert numbers == sorted(numbers)
    assert shown[-1] == "–"
    page.get_by_label("Filter").fill("salt-1")
    page.get_by_text("10 of 50 shown").wait_for()
    picture(page, "fifty")
    page.set_viewport_size(
        {"width": 390, "height": 844}
    )  # rows are cards there: nothing is beside the screen
    assert overflow(page) <= 0
    assert (
        page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('#results .scroll'))") <= 0
    )
    assert page.get_by_role("cell", name="lower, meV/atom").first.is_visible()
    picture(page, "fifty-phone")
    page.get_by_role("button", name="salt-13.vasp").press("Enter")
    page.get_by_role("heading", name="Why so wide").wait_for()
    assert "salt-13.vasp" in page.locator("#one-title").inner_text()


def test_which_is_lower_and_the_hull(page):
    drop(page, *[(f"salt-{k}.vasp", SALT.format(a=2.75 + 0.1 * k)) for k in range(3)])
    page.get_by_text("3 of 3 scored").wait_for()
    page.get_by_role("tab", name="Which is lower?").click()
    page.get_by_role("button", name="Compare crystals of one composition").click()
    page.get_by_text("Left of zero the first is lower").wait_for()
    assert page.locator("#differences tbody tr").count() == 3
    page.keyboard.press("Shift+Tab")  # back to the tabs, which arrows move along
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="How far from the hull?").get_attribute("aria-selected") == "true"
    (path,) = example_files("NaCl")
    page.locator("#phases").set_input_files(str(path))
    page.locator("#hull").get_by_role("button", name="Compute").click()
    page.locator("#hull").get_by_text("0 K").wait_for()
    assert overflow(page) <= 0
    picture(page, "decisions")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
    )
    picture(page, "decisions-phone")
    page.get_by_role("tab", name="Energies").click()
    with page.expect_download() as kept:
        page.get_by_role("button", name="this page").click()
    saved = Path(kept.value.path()).read_text(encoding="utf-8")
    assert "Left of zero the first is lower" in saved  # what was asked in the other tabs is there too
    assert "hidden" not in saved.partition("<body>")[2].replace("aria-hidden", "")


def test_energies_of_another_model_come_as_a_table(browser, address_of_both, both):
    head = "mace-mpa-0-published"
    (path,) = example_files("NaCl")
    with opened(browser, address_of_both) as page:
        assert not page.locator("#own").is_visible()
        page.locator("#head").select_option(head)
        assert "total energies" in page.locator("#own-said").inner_text()
        drop(page, (path.name, path.read_text()))
        page.get_by_role("alert").get_by_text("there is no table of them").wait_for()
        rows = b"material,n,energy_total_ev\nNaCl.cif,8,-27.1\nother,2,-3.0\n"
        page.locator("#predictions").set_input_files(
            {"name": "own.csv", "mimeType": "text/csv", "buffer": rows}
        )
        page.get_by_role("alert").get_by_text("has no column of ids").wait_for()
        assert page.get_by_label("Column of energies, eV").input_value() == "energy_total_ev"
        page.get_by_label("Column of ids, if not id").fill("material")
        page.get_by_label("Column of ids, if not id").press("Tab")
        page.get_by_role("heading", name="Why so wide").wait_for()
        wanted = both[head].predict(path, energies={"NaCl.cif": -27.1}).iloc[0]
        assert f"{wanted['energy_lower_ev']:.3f} eV".replace("-", "−") in page.locator(".answer").inner_text()
        assert not page.get_by_role("tab", name="How far from the hull?").count()
        assert overflow(page) <= 0
        picture(page, "own-energies")
        page.locator("#head").select_option("mini")
        page.get_by_role("tab", name="How far from the hull?").wait_for()
        assert not page.locator("#own").is_visible()


def test_a_busy_service_is_waited_for(page):
    """Two refusals, and the page asks again by itself; who looks at it sees patience, no error."""
    refused = []

    def busy(route):
        if len(refused) == 2:
            route.continue_()
            return
        refused.append(time.monotonic())
        error = {"error": {"sentence": "Busy.", "remedy": "Ask again later.", "request_id": "x"}}
        route.fulfill(status=503, headers={"retry-after": "1"}, json=error)

    page.route("**/v1/score?**", busy)
    (path,) = example_files("NaCl")
    drop(page, (path.name, path.read_text()))
    page.get_by_text("The service is busy; it is asked again in").wait_for()
    page.get_by_role("heading", name="Why so wide").wait_for()
    assert len(refused) == 2
    assert refused[1] - refused[0] >= 1
    assert not page.get_by_role("alert").is_visible()


def test_keyboard_and_names_for_screen_readers(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, textarea")].filter((e) =>
          !(e.labels?.length || e.textContent.trim() || e.getAttribute("aria-label"))).map((e) => e.outerHTML)"""
    )
    assert not unnamed
    page.get_by_text("Paste a structure").click()
    page.get_by_label("Text of a CIF").fill(example_files("Si")[0].read_text())
    page.get_by_role("button", name="Score", exact=True).press("Enter")
    page.locator("#one-title", has_text="Si").wait_for()
    page.get_by_label("Example").select_option("TiO2")
    page.locator("#one-title", has_text="TiO2.cif").wait_for()


def test_the_tab_key_reaches_everything_and_is_caught_nowhere(page):
    drop(page, *[(f"salt-{k}.vasp", SALT.format(a=2.75 + 0.1 * k)) for k in range(2)])
    page.get_by_text("2 of 2 scored").wait_for()
    page.get_by_role("button", name="salt-0.vasp").press("Enter")
    page.get_by_role("heading", name="Why so wide").wait_for()
    page.get_by_role("button", name="Spin").wait_for()
    page.evaluate(
        """() => {
          const all = [...document.querySelectorAll("a, button, select, input, textarea, summary, [tabindex='0']")];
          window.left = new Set(all.filter((e) => e.checkVisibility() && e.tabIndex >= 0));
          document.activeElement.blur();
          document.querySelector("h1").scrollIntoView();
        }"""
    )
    page.mouse.click(5, 5)  # the walk begins at the top
    for _ in range(page.evaluate("left.size") + 5):
        page.keyboard.press("Tab")
        page.evaluate("left.delete(document.activeElement)")
    assert page.evaluate("[...left].map((e) => e.outerHTML.slice(0, 100))") == []
    page.get_by_role("tab", name="Energies").focus()
    for key, name in (
        ("ArrowLeft", "How far from the hull?"),
        ("Home", "Energies"),
        ("End", "How far from the hull?"),
    ):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.textContent") == name
    assert page.locator("#hull").is_visible()
    assert not page.locator("#energies").is_visible()


def test_without_webgl_there_is_a_picture(browser, address):
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...more) "
        "{ return kind.startsWith('webgl') ? null : get.call(this, kind, ...more); };"
    )
    page.goto(address)
    page.get_by_text("Ready.").wait_for(timeout=60_000)
    (path,) = example_files("TiO2")
    drop(page, (path.name, path.read_text()))
    page.locator(".viewer[data-drawn]").wait_for(timeout=60_000)
    assert page.locator(".viewer").get_attribute("data-drawn") == "1:15"
    assert page.locator("script[src*='3Dmol']").count() == 0
    picture(page, "no-webgl")
    context.close()


def test_the_page_is_there_before_the_model():
    """On a cold start the page answers at once; only its questions wait."""
    from helpers.asking import running

    app = create_app(ServiceConfig(model="no-such-model"))
    start = time.monotonic()
    with running(app) as client:
        assert "mace-bounds" in client.get("/").text
        for name in ("main.js", "style.css", "3Dmol-min.js", "LICENSE.3Dmol.txt"):
            assert client.get(f"/page/{name}").status_code == 200
        assert time.monotonic() - start < 10
        for name in ("../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd"):
            assert client.get(f"/page/{name}").status_code == 404

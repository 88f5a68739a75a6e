"""Look at the page: pictures in light and dark, on a desk and a phone, and what axe-core says of each. Prints JSON.

    npm install axe-core
    python scripts/page_study.py node_modules/axe-core/axe.min.js pictures

Needs playwright and a Chromium on the path.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

from load_study import crystal, service
from mace_bounds.examples import example_files

PUBLISHED = "mace-mpa-0-published"
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
DROP = """(files) => {
  const data = new DataTransfer();
  for (const [name, text] of files) data.items.add(new File([text], name));
  document.querySelector("#drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


def first(page):
    page.wait_for_timeout(300)


def one(page):
    (path,) = example_files("TiO2")
    page.evaluate(DROP, [[path.name, path.read_text()]])
    page.get_by_role("heading", name="Why so wide").wait_for()
    page.locator(".viewer canvas").wait_for()
    page.wait_for_timeout(1500)


def novelty(page):
    page.get_by_role("button", name="Colour by novelty").click()
    page.wait_for_timeout(700)


def several(page):
    salts = [[f"salt-{k}.json", json.dumps(crystal(2000 * k))] for k in range(6)]
    (bad,) = example_files("broken")
    page.evaluate(DROP, [*salts, [bad.name, bad.read_text()]])
    page.get_by_text("7 of 7 shown").wait_for()


def lower(page):
    page.get_by_role("tab", name="Which is lower?").click()
    page.get_by_role("button", name="Compare crystals of one composition").click()
    page.get_by_text("Left of zero the first is lower").wait_for()


def hull(page):
    page.get_by_role("tab", name="How far from the hull?").click()
    page.locator("#phases").set_input_files(str(example_files("NaCl")[0]))
    page.locator("#hull").get_by_role("button", name="Compute").click()
    page.locator("#hull").get_by_text("0 K").wait_for()


def own(page):
    page.locator("#head").select_option(PUBLISHED)
    page.get_by_role("alert").get_by_text("there is no table of them").wait_for()
    table = {"name": "own.csv", "mimeType": "text/csv", "buffer": b"id,energy_ev\nNaCl.cif,-27.1\n"}
    page.locator("#predictions").set_input_files(table)
    (path,) = example_files("NaCl")
    page.evaluate(DROP, [[path.name, path.read_text()]])
    page.get_by_role("heading", name="Why so wide").wait_for()
    page.locator(".viewer canvas").wait_for()
    page.wait_for_timeout(1000)


def pasting(page):
    page.locator("#head").select_option("mini")
    page.get_by_text("Paste a structure").click()
    page.get_by_label("Text of a CIF").fill("NaCl")


def wrong(page):
    (bad,) = example_files("broken")
    page.evaluate(DROP, [[bad.name, bad.read_text()]])
    page.get_by_role("alert").get_by_text("Two atoms").wait_for()


STATES = (first, one, novelty, several, lower, hull, own, wrong, pasting)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("axe", type=Path, help="axe.min.js")
    parser.add_argument("pictures", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    options.pictures.mkdir(exist_ok=True)
    program = next(path for name in ("chromium", "google-chrome") if (path := shutil.which(name)))
    found, script = [], options.axe.read_text()
    heads = ("--head", "mini", "--head", PUBLISHED, "--max-slowdown", "1000")
    with service(*heads) as (_, url), sync_playwright() as driver:
        gl = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
        browser = driver.chromium.launch(executable_path=program, args=gl)
        for size, (width, height) in SIZES.items():
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    viewport={"width": width, "height": height}, color_scheme=scheme, bypass_csp=True
                )
                context.set_default_timeout(120_000)
                page = context.new_page()
                page.on("pageerror", lambda error: found.append(["script", str(error)]))
                page.goto(url)
                page.get_by_text("Ready.").wait_for()
                for act in STATES:
                    name = act.__name__
                    act(page)
                    page.screenshot(
                        path=options.pictures / f"{name}-{size}-{scheme}.png", full_page=name != "first"
                    )
                    page.evaluate(script)
                    said = page.evaluate("axe.run()")
                    found.extend(
                        [
                            name,
                            size,
                            scheme,
                            v["impact"],
                            v["id"],
                            v["nodes"][0]["html"][:120],
                            len(v["nodes"]),
                        ]
                        for v in said["violations"]
                    )
                context.close()
        browser.close()
    print(json.dumps({"axe": found}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()

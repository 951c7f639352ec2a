"""`python -m trainer.serve`, from its start to Ctrl-C, with hostile files and in a browser."""

import contextlib
import importlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from cxr_tfrecords.errors import UserError
from tests.dicom_files import dicom_file
from tests.shared import ROOT
from tests.trainer.serving.conftest import SIZE, png, run_dir  # noqa: F401

pytest.importorskip("fastapi", reason="the extra serve is not installed")
httpx = pytest.importorskip("httpx", reason="the server is asked with httpx")


@pytest.fixture
def serve():
    """The command's module. Flags of other commands that tests have imported have the same names,
    and absl refuses the second of a name unless it may take the place of the first."""
    for name in flags.FLAGS:
        flags.FLAGS[name].allow_override = True
    return importlib.import_module("trainer.serve")


def test_a_port_in_use_is_refused_in_one_line(serve, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with flagsaver.flagsaver(model=[str(tmp_path)], port=port):
            serve.FLAGS.mark_as_parsed()
            with pytest.raises(UserError, match=f"--port={port} cannot .*name another --port"):
                serve.main([])


def test_images_are_checked_as_the_flags_say(serve, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(
        "trainer.deployment.several_models.load_models", lambda paths, **options: given | options
    )
    monkeypatch.setattr(serve, "_answer_requests", lambda listening, models: given.update(models))
    with flagsaver.flagsaver(model=[str(tmp_path)], false_alarms=0.02):
        serve.FLAGS.mark_as_parsed()
        serve._serve(None)
    assert (given["ood_method"], given["false_alarms"]) == ("mahalanobis", 0.02)


@contextlib.contextmanager
def running(run_dir, *flags):  # noqa: F811
    """The address of a server in a process of its own; at the end, Ctrl-C must end it cleanly."""
    command = [sys.executable, "-m", "trainer.serve", f"--model={run_dir}", "--port=0", *flags]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = iter(process.stdout.readline, "")
            yield next(m[1] for line in lines if (m := re.match(r"serving at (\S+)", line)))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "\nthe server has ended\n")
    assert set(err.splitlines()) <= {"a decoding process crashed or was too slow: replaced"}


@pytest.mark.slow
def test_a_thousand_damaged_uploads_crash_nothing_and_change_no_answer(run_dir):  # noqa: F811
    rng = random.Random(0)
    gray = np.random.default_rng(0).integers(0, 4096, (40, 40)).astype(np.uint16)
    whole = [png(1, size=40), dicom_file(gray)]
    for kind in ("JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        whole.append(_as(kind))
    with running(run_dir) as address, httpx.Client(base_url=address, timeout=120) as client:
        known = [_answers(client, [data])[0] for data in whole]
        assert all("error" not in one for one in known)
        refused = 0
        for _ in range(50):
            parts = [_mutated(rng, whole[rng.randrange(len(whole))]) for _ in range(20)]
            answers = _answers(client, parts)
            assert all(("error" in one) != ("class" in one) for one in answers)
            refused += sum("error" in one for one in answers)
            number = rng.randrange(len(whole))
            assert _answers(client, [whole[number]])[0] == known[number]
        assert 300 < refused < 1000
        assert client.get("/health").json()["ready"]


def _as(kind):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(png(2, size=40))).save(buffer, kind)
    return buffer.getvalue()


def _mutated(rng, data):
    """With bytes changed, cut off, inserted or doubled."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        place = rng.randrange(len(changed))
        way = rng.randrange(5)
        if way < 2:
            changed[place] = rng.randrange(256)
        elif way == 2:
            del changed[place : place + rng.choice([1, 4, 100])]
        elif way == 3:
            changed[place:place] = rng.randbytes(rng.choice([1, 4, 100]))
        else:
            changed[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", bytes(4)])
        if not changed:
            return b""
    return bytes(changed)


def _answers(client, parts):
    response = client.post(
        "/predict?image=1", files=[("files", (f"{i}", data)) for i, data in enumerate(parts)]
    )
    assert response.status_code == 200, response.text
    files = response.json()["files"]
    assert [one.pop("name") for one in files] == [str(i) for i in range(len(parts))]
    return files


@pytest.mark.slow
def test_a_browser_shows_answers_heat_maps_and_reasons(run_dir, tmp_path):  # noqa: F811
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("there is no chromium with its chromedriver")
    hostile = "<img src=x onerror=alert(1)>.png"
    gray = np.random.default_rng(0).integers(0, 4096, (40, 40)).astype(np.uint16)
    contents = {"a.png": png(1), hostile: png(2), "c.dcm": dicom_file(gray), "d.png": b"<html>"}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with running(run_dir) as address:
        service = webdriver.ChromeService(driver)
        with webdriver.Chrome(options=options, service=service) as browser:
            browser.set_window_size(500, 900)
            browser.get(address)
            _check_page(browser, [str(tmp_path / name) for name in contents])
            texts = [card.text for card in browser.find_elements("css selector", "article")]
            with httpx.Client(base_url=address) as client:
                (known,) = _answers(client, [contents["a.png"]])
    assert [text.splitlines()[0] for text in texts] == list(contents)
    assert known["class"] == texts[0].splitlines()[1]
    for name, share in known["probabilities"]["calibrated"].items():
        assert f"\n{name}\n{100 * share:.1f}%\n" in texts[0]
    assert "scaled from 12 bits" in texts[2]
    assert "Cannot be used\nnot an image (starts with b'<html>')" in texts[3]


def _check_page(browser, paths):
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, 120)
    browser.find_element("id", "files").send_keys("\n".join(paths[:-1]))
    # What a browser does when a file is dropped.
    browser.execute_script(
        "const files = new DataTransfer();"
        "files.items.add(new File([arguments[1]], arguments[0]));"
        "const options = {dataTransfer: files, bubbles: true, cancelable: true};"
        "document.querySelector('#drop').dispatchEvent(new DragEvent('drop', options));",
        *("d.png", "<html>"),
    )
    wait.until(lambda _: "4 of 4" in browser.find_element("id", "progress").text)
    pictures = browser.find_elements("css selector", "article:not(.failed) img")
    plain = [picture.get_attribute("src") for picture in pictures]
    browser.find_element("id", "all-maps").click()
    wait.until(
        lambda _: len(browser.find_elements("css selector", "[aria-pressed=true]")) == len(plain)
    )
    heat = [picture.get_attribute("src") for picture in pictures]
    assert len({*plain, *heat}) == 6
    assert all(source.startswith("data:image/png;base64,") for source in heat)
    natural = browser.execute_script("return document.querySelector('article img').naturalWidth")
    assert natural == SIZE
    width = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert width <= 0, "the page does not scroll sideways"
    assert not browser.find_elements("css selector", "h2 img")
    assert browser.get_log("browser") == [], "no script or style was refused, no alert was shown"

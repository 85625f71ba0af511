"""The pages: what is in them, and that a real browser draws them."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.conftest import ENVIRONMENT


def browser():
    return shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")


def test_the_report_has_table_figures_and_recipe(quickstart):
    page = (quickstart[0] / "report.html").read_text()
    for text in (
        "better than the best parent",
        "a climb of 25 steps, cma",
        "The search",
        "Held-out items",
        "merge_method",
        "search score minus",
    ):
        assert text in page
    assert page.count('class="plotly-graph-div"') == 3
    assert 'src="http' not in page.split("<h2>")[0]


@pytest.mark.skipif(browser() is None, reason="no Chromium on this machine")
def test_a_browser_draws_the_report(quickstart, tmp_path):
    done = subprocess.run(
        [
            browser(),
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            (quickstart[0] / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.count("main-svg") >= 3
    assert "best so far" in done.stdout


def test_the_dashboard_serves_the_study(quickstart):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run = quickstart[0].resolve()
    process = subprocess.Popen(
        [sys.executable, "-m", "evomerge", "dashboard", str(run), "--port", str(port)],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        answer = _get(f"http://127.0.0.1:{port}/api/studies/1?after=0")
    finally:
        process.kill()
        process.wait()
    assert '"objective"' in answer
    assert '"playground_add"' in answer
    assert '"recipe"' in answer


def _get(url):
    for _ in range(120):
        try:
            with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - loopback
                return response.read().decode()
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(url)

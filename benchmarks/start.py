"""How long does a start take, and how much memory does the app hold? On the sample desk, with its index built.

From `python -m app` to the chat page over HTTP, then to the end of a first adapter answer; resident memory after it.
Peer, in the same run: an empty Gradio chat page served the same way, which is what any Gradio app pays.

    python benchmarks/start.py
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
from gradio_client import Client

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
PATIENCE_S = 300
QUESTION = "The picture on my second monitor keeps flickering"
PEER = (
    "import gradio as gr, sys\n"
    "with gr.Blocks() as demo:\n"
    "    gr.Chatbot()\n"
    "demo.launch(server_port=int(sys.argv[1]), quiet=True)\n"
)


def main() -> None:
    with tempfile.TemporaryDirectory() as state:
        os.environ |= {"SWITCHBOARD_HOME": state, "GRADIO_ANALYTICS_ENABLED": "False"}
        subprocess.run(
            [sys.executable, "-m", "app", "ask", "What is Corvane?"], cwd=ROOT, check=True, capture_output=True
        )
        start_ours()  # fills what is kept beside the index
        rounds = [start_ours() for _ in range(ROUNDS)]
        peer = [start_peer() for _ in range(ROUNDS)]
    page, answer, memory = (sorted(column)[ROUNDS // 2] for column in zip(*rounds, strict=True))
    other = sorted(peer)[ROUNDS // 2]
    figures = {
        "ready_page_s": round(page, 1),
        "first_adapter_answer_s": round(answer, 1),
        "resident_mb": round(memory / 1e6),
        "peer_ready_page_s": round(other, 1),
        "ratio_to_peer": round(page / other, 2),
        "rounds": ROUNDS,
    }
    print(json.dumps(figures))


def start_ours() -> tuple[float, float, int]:
    """(seconds to a ready page, seconds to the end of a first adapter answer, resident bytes after it)."""
    port = free_port()
    environment = {**os.environ, "SWITCHBOARD_PORT": str(port)}
    began = time.perf_counter()
    app = subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        page = wait_for(address, app) - began
        client = Client(address, verbose=False)
        client.predict(QUESTION, api_name="/take")
        client.submit("adapter", "auto", "", api_name="/answer").result(PATIENCE_S)
        return page, time.perf_counter() - began, psutil.Process(app.pid).memory_info().rss
    finally:
        app.terminate()
        app.wait(30)


def start_peer() -> float:
    port = free_port()
    began = time.perf_counter()
    app = subprocess.Popen([sys.executable, "-c", PEER, str(port)], stdout=subprocess.DEVNULL)
    try:
        return wait_for(f"http://127.0.0.1:{port}", app) - began
    finally:
        app.terminate()
        app.wait(30)


def wait_for(address: str, app: "subprocess.Popen[bytes]") -> float:
    """The moment at which the page answered."""
    deadline = time.perf_counter() + PATIENCE_S
    while time.perf_counter() < deadline:
        if app.poll() is not None:
            raise SystemExit(f"the app ended with status {app.returncode}")
        try:
            with urllib.request.urlopen(address, timeout=10) as page:
                page.read()
                return time.perf_counter()
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"no page at {address} within {PATIENCE_S} s")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    main()

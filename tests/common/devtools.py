"""Opens a page in a headless Chromium and evaluates JavaScript in it, over the DevTools protocol.

    devtools.py BROWSER URL [--screenshot FILE] [--size WIDTHxHEIGHT] [--dark] < SCRIPT

The script is an expression, which may be a promise. Prints one JSON object: `value`, the value of the script, and
`errors`, what the console of the page reported as errors. A screenshot has the whole page, not only the window. Only Python's standard library is needed: Chromium reads
messages from descriptor 3 and writes them to descriptor 4, each ended by a zero byte.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile


class Browser:
    def __init__(self, program, profile):
        child_reads, self.sink = os.pipe()
        self.source, child_writes = os.pipe()

        def descriptors():
            # Copies first: one of the pipes may itself have the number 3 or 4.
            for copy, number in ((os.dup(child_reads), 3), (os.dup(child_writes), 4)):
                os.dup2(copy, number)

        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        command = [program, *options, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            command, preexec_fn=descriptors, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(child_reads)
        os.close(child_writes)
        self.number, self.rest, self.errors, self.session, self.loaded = 0, b"", [], None, False

    def message(self):
        """The next message; notes errors of the page and whether it is loaded."""
        while b"\0" not in self.rest:
            chunk = os.read(self.source, 1 << 16)
            if not chunk:
                sys.exit("the browser has ended")
            self.rest += chunk
        text, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(text)
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self.loaded = True
            case "Runtime.exceptionThrown":
                self.errors.append(params["exceptionDetails"])
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(params["entry"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.errors.append(params["args"])
        return message

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        with os.fdopen(os.dup(self.sink), "wb") as sink:
            sink.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("browser")
    parser.add_argument("url")
    parser.add_argument("--screenshot")
    parser.add_argument("--size", default="1400x1000")
    parser.add_argument("--dark", action="store_true")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    scheme = {"name": "prefers-color-scheme", "value": "dark" if args.dark else "light"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(args.browser, profile)
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            browser.call(f"{domain}.enable")
        window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.call("Emulation.setDeviceMetricsOverride", **window)
        browser.call("Emulation.setEmulatedMedia", features=[scheme])
        browser.loaded = False
        browser.call("Page.navigate", url=args.url)
        while not browser.loaded:
            browser.message()
        script = {"expression": sys.stdin.read(), "awaitPromise": True, "returnByValue": True}
        result = browser.call("Runtime.evaluate", **script)
        if "exceptionDetails" in result:
            sys.exit(json.dumps(result["exceptionDetails"]))
        if args.screenshot:
            image = browser.call("Page.captureScreenshot", captureBeyondViewport=True)
            with open(args.screenshot, "wb") as file:
                file.write(base64.b64decode(image["data"]))
        print(json.dumps({"value": result["result"].get("value"), "errors": browser.errors}))
        browser.session = None
        browser.call("Browser.close")
        browser.process.wait(timeout=30)


main()

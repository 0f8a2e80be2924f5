"""``python -m tests.bench.inventory [COUNT]``: lists and pages of a real server with that many models on its disk.

Prints milliseconds of requests one after the other, and what the event loop was held up by meanwhile.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx2
import psutil

from tests.live.process import LiveServer

PATHS = (
    "/admin/models/list?limit=50",
    "/admin/models/list?limit=50&search=model-04&sort=size&order=desc",
    "/admin/models/list?limit=50&state=unloaded&sort=last_used&offset=5000",
    "/admin/models/list",
    "/v1/models",
    "/models",
    "/models?search=model-04&sort=size",
    "/models/one?model_id=org-07%2Fmodel-00007",
    "/",
    "/inventory/models_admin/modelrecord/",
    "/inventory/models_admin/modelrecord/?q=model-00042",
    "/inventory/models_admin/modelfile/",
)
TIMES = 20


def measured(client: httpx2.Client, path: str) -> tuple[list[float], int]:
    """Milliseconds of each request, sorted, and the bytes of an answer."""
    found, size = list[float](), 0
    for _ in range(TIMES):
        began = time.perf_counter()
        answer = client.get(path)
        found.append(1000 * (time.perf_counter() - began))
        answer.raise_for_status()
        size = len(answer.content)
    return sorted(found), size


def main(count: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lmx_site.settings")
    with tempfile.TemporaryDirectory() as place:
        os.environ["LMX_HOME"] = place
        import django

        django.setup()
        from tests.material.many import many_directories

        many_directories(count, Path(place) / "models")
        server = LiveServer(Path(place))
        began = time.perf_counter()
        server.start()
        try:
            print(f"{count} models; first start with their scan {time.perf_counter() - began:.1f} s")
            with httpx2.Client(base_url=server.url, timeout=60, follow_redirects=True) as client:
                for path in PATHS:
                    times, size = measured(client, path)
                    middle, most = statistics.median(times), times[-1]
                    print(f"{path:75} median {middle:6.1f} ms  longest {most:6.1f} ms  {size / 1024:8.0f} KB")
            process = psutil.Process(server.pid)
            print(f"web process: {process.memory_info().rss / 2**20:.0f} MB")
            began, used = time.perf_counter(), sum(process.cpu_times()[:2])
            time.sleep(10)
            spent = sum(process.cpu_times()[:2]) - used
            print(f"idle: {100 * spent / (time.perf_counter() - began):.0f} % of a core")
            server.stop()
            began = time.perf_counter()
            server.start()
            print(f"second start {time.perf_counter() - began:.1f} s")
        finally:
            server.stop()
            server.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)

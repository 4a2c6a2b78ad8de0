"""Two hosts on this machine: network namespaces with an address each and a link of a given speed between them.

    python -m benchmarks.hosts --rates 100mbit,1gbit,none --exchanges vote,count,exact

runs `benchmarks.ranks` on both, one thread each, as root; `tc`'s token buckets shape what either sends.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PORT = 29571


def _call(*words: str) -> None:
    subprocess.run(words, check=True)


@contextmanager
def hosts(rate: str) -> Iterator[list[str]]:
    """The names of two network namespaces whose link carries so much each way, as `tc` takes it; none: all it can."""
    names = [f"bnn-host-{os.getpid()}-{number}" for number in range(2)]
    links = [f"bnn{os.getpid() % 100_000}-{number}" for number in range(2)]
    try:
        for name in names:
            _call("ip", "netns", "add", name)
        _call("ip", "link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for number, (name, link) in enumerate(zip(names, links, strict=True), start=1):
            _call("ip", "link", "set", link, "netns", name)
            _call("ip", "-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", link)
            for device in ("lo", link):
                _call("ip", "-n", name, "link", "set", device, "up")
            if rate != "none":
                shape = ("tbf", "rate", rate, "burst", "256kb", "latency", "100ms")
                _call("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", link, "root", *shape)
        yield [f"{name} {link}" for name, link in zip(names, links, strict=True)]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def measured(rate: str, exchange: str, words: list[str]) -> str:
    """What the first rank prints."""
    with hosts(rate) as found:
        processes = []
        for rank, host in enumerate(found):
            name, link = host.split()
            own = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
            where = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": str(_PORT), "GLOO_SOCKET_IFNAME": link}
            command = [sys.executable, "-m", "benchmarks.ranks", "--exchange", exchange, *words]
            processes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", name, *command],
                    env={**os.environ, "OMP_NUM_THREADS": "1", **own, **where},
                    cwd=_ROOT,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        lines = [process.communicate()[0] for process in processes]
        sent = [_sent_bytes(host) for host in found]
    return f"{lines[0].strip()}; on the link {max(sent) / 1e6:.2f} MB in all"


def _sent_bytes(host: str) -> int:
    """What a host has sent on its link, with all headers."""
    name, link = host.split()
    path = f"/sys/class/net/{link}/statistics/tx_bytes"
    return int(subprocess.run(["ip", "netns", "exec", name, "cat", path], check=True, capture_output=True).stdout)


def main() -> None:
    """Prints a line for each rate and exchange; what it does not know goes to `benchmarks.ranks`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="100mbit,1gbit,none")
    parser.add_argument("--exchanges", default="vote,count,exact")
    options, words = parser.parse_known_args()
    for rate in options.rates.split(","):
        for exchange in options.exchanges.split(","):
            print(f"{rate}: {measured(rate, exchange, words)}", flush=True)


if __name__ == "__main__":
    main()

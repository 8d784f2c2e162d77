"""Two machines on one: namespaces of Linux with a host name, a network, processes and mounts of their own each.

Usage: sudo python tests/distributed/two_hosts.py finetune CONFIG train.device=cpu section.name=value
starts torchrun on both, as it is started on two machines, with one process on each.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = ("host-a", "host-b")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = 29500
ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")
NAMESPACES = ("unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL")
BEGIN = 'mount --bind "$2" /etc/hosts && hostname "$1" && ip link set lo up && echo ready && exec sleep infinity'


class Host:
    """One of the two, from its start until its power is cut.

    Args:
        number: 0 or 1.
        table: a file for its `/etc/hosts`.
    """

    def __init__(self, number, table):
        self.number, self.name = number, NAMES[number]
        self.keeper = subprocess.Popen(
            [*ENDS_WITH_US, *NAMESPACES, "sh", "-c", BEGIN, "sh", self.name, str(table)],
            stdout=subprocess.PIPE,
            text=True,
        )
        if self.keeper.stdout.readline() != "ready\n":
            raise OSError("namespaces cannot be made here: it takes root, and `ip` of iproute2")
        children = Path(f"/proc/{self.keeper.pid}/task/{self.keeper.pid}/children").read_text()
        self.enter = ["nsenter", "--target", children.strip(), "--all"]

    def run(self, *argv):
        """Run a command there to its end."""
        subprocess.run([*self.enter, *argv], check=True)

    def start(self, argv, folder, output):
        """Start a command there in a folder, its output into a file."""
        return subprocess.Popen([*self.enter, "env", "-C", str(folder), *argv], stdout=output, stderr=output)

    def cut_power(self):
        """Kill all that runs there at once; its network is gone with it."""
        self.keeper.kill()
        self.keeper.wait()


class TwoHosts:
    """Both, with a cable between them."""

    def __enter__(self):
        with tempfile.NamedTemporaryFile("w", suffix="-hosts", delete=False) as table:
            table.write("127.0.0.1 localhost\n")
            table.writelines(f"{address} {name}\n" for address, name in zip(ADDRESSES, NAMES, strict=True))
        self.table, self.hosts = Path(table.name), []
        try:
            for number in range(2):
                self.hosts.append(Host(number, self.table))
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for host in self.hosts:
            host.cut_power()
        self.table.unlink()

    def __getitem__(self, number):
        return self.hosts[number]

    def restart(self, number):
        """Switch a host on whose power was cut."""
        self.hosts[number] = Host(number, self.table)
        self._connect()

    def _connect(self):
        first, second = (str(host.keeper.pid) for host in self.hosts)
        ends = ("name", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns", second)
        for _ in range(50):  # the cable of a host that was switched off goes away a moment later
            made = subprocess.run(["ip", "link", "add", *ends], capture_output=True, text=True)
            if made.returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise OSError(f"no network can be made here: {made.stderr.strip()}")
        for host, address in zip(self.hosts, ADDRESSES, strict=True):
            host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")

    def torchrun(self, folder, *what, rendezvous=0):
        """Start torchrun on both, a process each, and return both; their output is in `host-a.txt` and `host-b.txt`.

        Args:
            folder: the working directory, which both see.
            what: a script or `-m` and a module, with its arguments.
            rendezvous: the host where they meet.
        """
        options = ("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "two-hosts")
        endpoint = ("--rdzv-endpoint", f"{NAMES[rendezvous]}:{PORT}")
        started = []
        for host in self.hosts:
            settings = (f"MMTUNE_CACHE={folder}/cache-{host.name}", "GLOO_SOCKET_IFNAME=eth0", "OMP_NUM_THREADS=1")
            argv = ["env", *settings, sys.executable, "-m", "torch.distributed.run", *options, *endpoint, *what]
            with Path(folder, f"{host.name}.txt").open("w") as output:
                started.append(host.start(argv, folder, output))
        return started


def main():
    """Run a command of mmtune on two hosts, and show what each says."""
    folder = Path.cwd()
    with TwoHosts() as hosts:
        codes = [each.wait() for each in hosts.torchrun(folder, "-m", "mmtune", *sys.argv[1:])]
    for name, code in zip(NAMES, codes, strict=True):
        print(f"---- {name}, exit code {code}\n{Path(folder, f'{name}.txt').read_text()}")
    return max(codes)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("two_hosts.py: making hosts takes root. Start it with sudo.")
    sys.exit(main())

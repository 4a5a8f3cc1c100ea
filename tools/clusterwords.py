# SPDX-License-Identifier: LGPL-2.1-or-later
"""What pcs, crm_verify and crmsh say of a cluster, less what they say of a healthy one."""

from __future__ import annotations

import calendar
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.support import debian
from tests.system.cluster.cluster import Cluster
from tests.system.cluster.examined import Examined

#: Asked on the node that is examined.
PROGRAMS = ("pcs status", "crm_verify -LV", "crm cluster health")

#: What differs from time to time, and what is no complaint: where something runs, how busy the
#: machine is; and of crmsh's report what differs between nodes because it has the time.
_VARIES = (
    (r"\x1b\[[0-9;]*m", ""),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\S*( [+-]\d{4})?", "TIME"),
    (r"\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}( \S\d\d:\d\d)?", "TIME"),
    (r"\bnode\d (pacemaker\S*|crm\S*) *(\[\d+\])? *(\(\w+\))?", r"\1"),
    (r"\[\d+\]", ""),
    (r"\d+(ms|s)\b", "N s"),
    (r"crm-tmp-\w+|\.crm_report\.workdir\.\w+", "FOLDER"),
    (r"Started node\d", "Started"),
    (r"(call|epoch|num_updates|last-rc-change|exec|queued)[=-]\S+", ""),
)
#: How a line of a log begins; crmsh shows those of the last day.
_LOGGED = re.compile(r"(?<![a-z] )([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d)(?:\.\d+)? ")

#: In crmsh's report: how a file differs between nodes, of which the heading is enough, and of files
#: that have the time in them nothing.
_DIFFERENCES = re.compile(
    r"^(?:Diff (?:crm_mon|sysinfo|members|cib)\S*|(Diff \S+)) ?\n(?:(?!Diff |Checking ).*\n)*", re.M
)

_NO_COMPLAINT = (
    r"Last (updated|change)|Current DC|Status of pacemakerd|resource instances|load average"
    r"|health-report in directory|: +Started$|Nodes: |askpass"
)


def with_ssh(cluster: Cluster) -> None:
    """Let root of each node log in on all others, which crm cluster health does. NotAvailable."""
    site = cluster.site
    folder = site.shared / "ssh"
    folder.mkdir()
    for package in ("openssh-server", "openssh-sftp-server", "libwrap0"):
        for path in debian.unpacked(package).rglob("*"):
            if path.is_file() and re.search(r"/sshd[^/]*$|sftp-server$|libwrap\.so", str(path)):
                shutil.copy(path, folder)
    (folder / "sshd_config").write_text("UsePAM no\nStrictModes no\nSubsystem sftp /sftp\n")
    (folder / "config").write_text("StrictHostKeyChecking no\nLogLevel ERROR\n")
    for node in cluster.nodes:
        cluster.run(_SSHD, node)


_SSHD = """\
cd /run/shared/ssh
[ -e key ] || ssh-keygen -q -t ed25519 -N '' -f key
cp sftp-server /sftp
cp libwrap.so* /usr/lib/
ldconfig
mkdir -p -m 700 /root/.ssh /run/sshd /etc/ssh /usr/lib/openssh
cp sshd /usr/sbin/
cp sshd-* /usr/lib/openssh/ 2>/dev/null || true
cp key /root/.ssh/id_ed25519
cp key.pub /root/.ssh/authorized_keys
cp config /root/.ssh/config
cp sshd_config /etc/ssh/
grep -q ^sshd: /etc/passwd || echo sshd:x:901:901::/run/sshd:/usr/sbin/nologin >>/etc/passwd
ssh-keygen -A >/dev/null
/usr/sbin/sshd
"""


class Words:
    """What they said of the healthy cluster, so that something new is seen."""

    def __init__(self, examined: Examined) -> None:
        """Hear it, and once more after the cluster was configured anew."""
        self._examined = examined
        self._known: dict[str, set[str]] = {program: set() for program in PROGRAMS}
        self._since = 0.0
        for _ in range(2):
            for program in PROGRAMS:
                self._known[program].update(self._lines(program))
            examined.configure_again()

    def begin(self) -> None:
        """Something is going to be planted: what was logged before does not count."""
        time.sleep(1.1)  # logs have whole seconds
        self._since = time.time()

    def said(self) -> tuple[str, ...]:
        """What each says that it does not say of the healthy cluster; "nothing" if that is so."""
        with ThreadPoolExecutor() as pool:
            return tuple(pool.map(self._new, PROGRAMS))

    def _new(self, program: str) -> str:
        new = [line for line in self._lines(program) if line not in self._known[program]]
        return "; ".join(dict.fromkeys(new)) or "nothing"

    def _lines(self, program: str) -> Iterator[str]:
        done = self._examined.cluster.attempt(program, self._examined.node)
        text = _DIFFERENCES.sub(r"\1\n", done.stdout)
        for line in _LOGGED.sub(r"\n\1 TIME ", text).splitlines():
            logged = re.match(r"(\w{3} [ \d]\d \S+) TIME ", line)
            if logged and _moment(logged[1]) < int(self._since):
                continue
            said = _constant(line)
            if said and not re.search(_NO_COMPLAINT, said):
                yield said
        yield f"exit status {done.returncode}"


def _constant(line: str) -> str:
    """A line without what differs each time."""
    line = re.sub(r"^\w{3} [ \d]\d \S+ TIME ", "", line)
    for pattern, instead in _VARIES:
        line = re.sub(pattern, instead, line)
    return " ".join(line.strip(" *").split())


def _moment(logged: str) -> float:
    """A log's time, which has no year, on machines whose clock is UTC."""
    year = time.gmtime().tm_year
    return float(calendar.timegm(time.strptime(f"{year} {logged}", "%Y %b %d %H:%M:%S")))

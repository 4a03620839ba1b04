#!/bin/bash
# isolated.sh STATE PROGRAMS COMMAND…: runs COMMAND with mounts and processes of its
# own. /etc, /var and /home are copies kept in STATE, since AWS's agent writes all over
# them, and its PROGRAMS are in /usr/bin, where it looks for them. Everything that
# COMMAND starts dies with it. The network is the machine's.
set -euo pipefail
if [ "$1" != inside ]; then
  mkdir -p "$1"/{etc,var,home}/{upper,work}
  exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc "$0" inside "$@"
fi
state=$2 programs=$3
shift 3
for d in etc var home; do
  mount -t overlay overlay -o "lowerdir=/$d,upperdir=$state/$d/upper,workdir=$state/$d/work" "/$d"
done
mount -t overlay overlay -o "lowerdir=$programs:/usr/bin" /usr/bin
mkdir -p /etc/amazon/ssm /var/lib/amazon/ssm /var/log/amazon/ssm
cp "$state/amazon-ssm-agent.json" /etc/amazon/ssm/
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$state" SSL_CERT_FILE="$SSL_CERT_FILE" "$@"

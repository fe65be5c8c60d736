#!/usr/bin/env bash
# Starts Ray on a node of a cluster, as its head or as a worker of $RAY_HEAD_IP, or ends the Ray that it started.
#
#   start_ray.sh head|worker|stop [options of `ray start`]
#
# `ray stop` would end every Ray process of the machine, also those of others. What is started here stays the child of
# one `ray start --block`, which ends it when it is ended itself.
set -euo pipefail

START_SECONDS=180
STOP_SECONDS=60

role=${1:?head, worker or stop}
shift
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ray=${RAY:-$home/venv/bin/ray}
# The address tells hosts apart that share a home folder.
read -r address _ <<<"$(hostname -I) local"
# As others reach this host; Ray itself would look for the way to the internet, and take the loopback where there is none.
read -r _ _ reached _ <<<"${SSH_CONNECTION:-- - $address -}"
name=$home/ray-$address
log=$name.log

# Whether the process of the file is one that we started: its number may have been given to another since.
is_ours() {
  [[ -e $name.pid ]] && tr '\0' ' ' 2>/dev/null <"/proc/$(<"$name.pid")/cmdline" | grep -q -- ' start --block '
}

if is_ours; then
  pid=$(<"$name.pid")
  kill -TERM "$pid"
  for ((second = 0; second < STOP_SECONDS; second++)); do
    is_ours || break
    sleep 1
  done
  is_ours && kill -KILL "$pid"
fi
rm -f "$name.pid"
[[ $role == stop ]] && exit 0

if [[ ${RAY_AUTH_MODE:-} != token || ! -s $HOME/.ray/auth_token ]]; then
  echo "error: Ray is not started without token authentication. Fix: export RAY_AUTH_MODE=token, and on your own" \
    "machine run 'ray get-auth-token --generate' before 'ray up'." >&2
  exit 2
fi
chmod 600 "$HOME/.ray/auth_token"
case $role in
  # The dashboard takes jobs, so it listens on this machine only; `ray dashboard` brings it to yours through ssh.
  head) options=(--head "--node-ip-address=$reached" --port=6379 --dashboard-host=127.0.0.1) ;;
  worker) options=("--address=${RAY_HEAD_IP:?}:6379" "--node-ip-address=$reached") ;;
  *) echo "error: no role $role. Fix: head, worker or stop." >&2 && exit 2 ;;
esac

# What the autoscaler may have beside the head, where its configuration says so, for the check before a job's work:
# core/resources.py.
for option in "$@"; do
  if [[ $option == --autoscaling-config=* ]]; then
    TIEBREAK_NODE_TYPES=$(python3 -c '
import json, os, sys
config = json.load(open(os.path.expanduser(sys.argv[1])))
types, most = config["available_node_types"], config["max_workers"]
types.pop(config["head_node_type"], None)
known = [[each["resources"], min(each.get("max_workers", most), most)] for each in types.values()]
print(json.dumps(known) if all(resources for resources, _ in known) else "")' "${option#*=}")
    if [[ -n $TIEBREAK_NODE_TYPES ]]; then export TIEBREAK_NODE_TYPES; else unset TIEBREAK_NODE_TYPES; fi
  fi
done

# The autoscaler on the head loads clusters/aws.py or gcp.py from here, and jobs run the `python` that they find.
export PYTHONPATH=$home${PYTHONPATH:+:$PYTHONPATH} PATH=${ray%/*}:$PATH
# `ray up` exports it as 1, which every task would inherit; without it Ray gives a task as many threads as CPUs.
unset OMP_NUM_THREADS
# After `ray job stop` a job ends its engines and gives its run back; Ray's 3 seconds are too few for that.
export RAY_JOB_STOP_WAIT_TIME_S=${RAY_JOB_STOP_WAIT_TIME_S:-60}
ulimit -n 65536 2>/dev/null || true
setsid nohup "$ray" start --block "${options[@]}" "$@" >"$log" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$name.pid"
for ((second = 0; second < START_SECONDS; second++)); do
  if grep -q 'Ray runtime started' "$log"; then
    echo "Ray is up as $role; its log is $log"
    exit 0
  fi
  if ! kill -0 "$pid" 2>/dev/null; then break; fi
  sleep 1
done
kill -TERM "$pid" 2>/dev/null || true
rm -f "$name.pid"
echo "error: Ray did not start within $START_SECONDS s; the end of $log says why:" >&2
tail -n 20 "$log" >&2
exit 1

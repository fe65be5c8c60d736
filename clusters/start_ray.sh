#!/usr/bin/env bash
# Start Ray on a node of a cluster, as its head or as a worker of $RAY_HEAD_IP, or stop the Ray that it started.
#
#   start_ray.sh head|worker|stop [options of `ray start`]
#
# `ray stop` would end every Ray process of the machine, including other users'. Processes started here are children of
# one `ray start --block`, which ends them when it is stopped.
set -euo pipefail

START_SECONDS=180
STOP_SECONDS=60

role=${1:?head, worker or stop}
shift
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ray=${RAY:-$home/venv/bin/ray}
# The address distinguishes hosts that share a home folder.
read -r address _ <<<"$(hostname -I) local"
# The address at which others reach this host. Ray would use its route to the internet, or loopback without one.
read -r _ _ reached _ <<<"${SSH_CONNECTION:-- - $address -}"
name=$home/ray-$address
log=$name.log

# Return whether this script started the process in the file. The process id may have been reused.
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
  echo "error: Ray does not start without token authentication. Fix: export RAY_AUTH_MODE=token, and on your own" \
    "machine run 'ray get-auth-token --generate' before 'ray up'." >&2
  exit 2
fi
chmod 600 "$HOME/.ray/auth_token"
case $role in
  # The dashboard accepts jobs, so it listens only on loopback. `ray dashboard` forwards it to your machine through ssh.
  head) options=(--head "--node-ip-address=$reached" --port=6379 --dashboard-host=127.0.0.1) ;;
  worker) options=("--address=${RAY_HEAD_IP:?}:6379" "--node-ip-address=$reached") ;;
  *) echo "error: unknown role $role. Fix: use head, worker or stop." >&2 && exit 2 ;;
esac

# The nodes that the autoscaler may add besides the head, from its configuration. core/resources.py reads them for the
# check before a job's work.
for option in "$@"; do
  if [[ $option == --autoscaling-config=* ]]; then
    TIEBREAK_NODE_TYPES=$(python3 -c '
import json, os, sys
config = json.load(open(os.path.expanduser(sys.argv[1])))
types, limit = config["available_node_types"], config["max_workers"]
types.pop(config["head_node_type"], None)
nodes = [[spec["resources"], min(spec.get("max_workers", limit), limit)] for spec in types.values()]
print(json.dumps(nodes) if all(resources for resources, _ in nodes) else "")' "${option#*=}")
    if [[ -n $TIEBREAK_NODE_TYPES ]]; then export TIEBREAK_NODE_TYPES; else unset TIEBREAK_NODE_TYPES; fi
  fi
done

# The autoscaler on the head loads clusters/aws.py or gcp.py from here, and jobs run the first `python` on PATH.
export PYTHONPATH=$home${PYTHONPATH:+:$PYTHONPATH} PATH=${ray%/*}:$PATH
# `ray up` exports it as 1, and every task would inherit this. Without it Ray gives a task as many threads as CPUs.
unset OMP_NUM_THREADS
# After `ray job stop` a job ends its engines and releases its lock. Ray's default of 3 s is too short for that.
export RAY_JOB_STOP_WAIT_TIME_S=${RAY_JOB_STOP_WAIT_TIME_S:-60}
ulimit -n 65536 2>/dev/null || true
setsid nohup "$ray" start --block "${options[@]}" "$@" >"$log" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$name.pid"
for ((second = 0; second < START_SECONDS; second++)); do
  if grep -q 'Ray runtime started' "$log"; then
    echo "Ray is running as $role; log: $log"
    exit 0
  fi
  if ! kill -0 "$pid" 2>/dev/null; then break; fi
  sleep 1
done
kill -TERM "$pid" 2>/dev/null || true
rm -f "$name.pid"
echo "error: Ray did not start within $START_SECONDS s. The last lines of $log:" >&2
tail -n 20 "$log" >&2
exit 1

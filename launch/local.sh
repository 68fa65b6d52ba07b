#!/usr/bin/env bash
# Runs a command on this machine: as one run of several processes, or as the parts of a study side by side.
#
#   launch/local.sh --processes 2 -- scaling-jax pretrain --gin_file gin_configs/runs/pretrain.gin --out runs/base \
#       --gin.MODEL=ladder_60k --gin.STORE=stores/lab/pretrain --gin.TOKENS='(819200,)'
#   launch/local.sh --shards 8 -- scaling-jax study --gin_file gin_configs/studies/peft_benchmark.gin --out runs/peft
#
# One process that uses all GPUs of the machine needs no launcher: run scaling-jax itself.
#
#   --processes N    processes of one run; the GPUs are divided among them (default 1)
#   --shards N       instead: N processes, the i-th makes part i of the study; the GPUs are divided among them
#   --gpus LIST      the GPUs to use, such as 0,1,2,3 (default: CUDA_VISIBLE_DEVICES, else all)
#   --cpu_devices N  run on the CPU, each process with N simulated devices
#   --port N         of the first process, where the others report (default: a free one from 12300 to 12399)
#   --grace N        seconds in which the others may save and end when one has failed (default 120)
#   --dry_run        print the commands, run nothing
#
# When a process of a run fails, the others are ended and its exit code is returned. The parts of a study go on
# without it. Ctrl-C and SIGTERM reach every process: runs save, and the same command goes on from there.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

takes='processes shards gpus cpu_devices port grace' lists='' switches=''
processes='' shards='' gpus='' cpu_devices='' port='' grace=120
parse_options "$@"
check_command here
check_shards
[[ -z $processes || -z $shards ]] || fail "give --processes (one run) or --shards (parts of a study), not both"
[[ -z $gpus || -z $cpu_devices ]] || fail "give --gpus or --cpu_devices, not both"
processes=${processes:-1}
check_number processes
check_number grace 0
[[ -z $cpu_devices ]] || check_number cpu_devices
count=${shards:-$processes}

# Whether nothing listens there.
is_free() {
  ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

if [[ -n $port ]]; then
  check_number port
  ((port < 65536)) || fail "--port $port: 1 to 65535"
  is_free "$port" || fail "port $port is in use: give another --port, or none to have a free one taken"
elif [[ -z $shards ]] && ((count > 1)); then
  for ((port = 12300 + $$ % 100, tried = 0; tried < 100; tried++, port = 12300 + (port + 1) % 100)); do
    is_free "$port" && break
  done
  ((tried < 100)) || fail "no free port from 12300 to 12399: give --port"
fi

# The GPUs of the machine, an equal part for every process.
devices=()
if [[ -z $cpu_devices ]]; then
  if [[ -z $gpus && -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    gpus=$CUDA_VISIBLE_DEVICES
    [[ $gpus != -1 ]] || gpus=''  # as an empty one: none
  elif [[ -z $gpus ]] && type -P nvidia-smi >/dev/null; then
    gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd, -) || gpus=''
  fi
  IFS=, read -r -a devices <<<"$gpus"
  ((${#devices[@]} % count == 0)) || fail "${#devices[@]} GPUs ($gpus) cannot be divided among $count processes: see --gpus"
fi

# words_of I: the I-th process's command, with its environment before it.
words_of() {
  words=(env)
  if [[ -z $shards ]] && ((count > 1)); then
    words+=("SCALING_JAX_COORDINATOR=127.0.0.1:$port" "SCALING_JAX_PROCESSES=$count" "SCALING_JAX_PROCESS=$1")
  fi
  local each=$((${#devices[@]} / count)) mine
  if ((each)); then
    mine=$(IFS=, && echo "${devices[*]:$1 * each:each}")
    words+=("CUDA_VISIBLE_DEVICES=$mine")
  fi
  [[ -z $cpu_devices ]] || words+=("JAX_PLATFORMS=cpu" "JAX_NUM_CPU_DEVICES=$cpu_devices")
  words+=("${command[@]}")
  [[ -z $shards ]] || words+=(--shard "$(($1 + 1))/$count")
}

if [[ -n $dry_run ]]; then
  for ((i = 0; i < count; i++)); do
    words_of "$i"
    printf '%s\n' "$(quoted "${words[@]}")"
  done
  exit 0
fi

# Each in a process group of its own (set -m), or Ctrl-C would be ignored by them: bash starts what runs behind it so.
# Lines are marked with the process that they come from; what marks them outlives a signal, so that last words arrive.
# Gloo, by which JAX's processes talk on CPUs, tells of every connection: left out.
set -m
marked() { trap '' INT TERM && exec sed -u -e '/^\[Gloo\] Rank /d' -e "s/^/[$1] /"; }
pids=()
for ((i = 0; i < count; i++)); do
  words_of "$i"
  "${words[@]}" > >(marked "$i") 2> >(marked "$i" >&2) &
  pids+=($!)
done

signal_all() {
  local pid
  for pid in "${pids[@]}"; do kill "-$1" "$pid" 2>/dev/null || true; done
}

# Those that do not end by themselves are killed with all that they have started.
end_after_grace() {
  sleep "$grace"
  local pid
  for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
}

code='' watchdog=''
stop() {
  signal_all "$1"
  [[ -n $watchdog ]] || { end_after_grace & watchdog=$!; }
}
trap 'stop INT' INT
trap 'stop TERM' TERM

# A signal to this script ends `wait` early, without a process.
left=$count
while ((left)); do
  ended='' status=0
  wait -n -p ended "${pids[@]}" 2>/dev/null || status=$?
  [[ -n ${ended:-} ]] || continue
  left=$((left - 1))
  for i in "${!pids[@]}"; do
    [[ ${pids[i]} != "$ended" ]] || { unset "pids[$i]" && process=$i; }
  done
  ((status)) || continue
  code=${code:-$status}
  say "process $process ended with exit code $status"
  [[ -n $shards || -n $watchdog ]] || stop TERM
done
[[ -z $watchdog ]] || kill -KILL -- "-$watchdog" 2>/dev/null || true
exit "${code:-0}"

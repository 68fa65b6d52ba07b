#!/usr/bin/env bash
# Runs a command on all hosts of a Cloud TPU pod: asks for the pod as a queued resource, installs this checkout on it,
# runs, and goes on after a preemption.
#
#   launch/tpu_vm.sh --name pod --zone us-east5-b --type v6e-16 --spot \
#       --setup 'sudo mkdir -p /shared && sudo mount -o nolock 10.0.0.2:/share /shared' -- \
#       scaling-jax pretrain --gin_file gin_configs/runs/pretrain_1b.gin --out /shared/runs/base \
#       --gin.STORE="{'mono_en': '/shared/stores/en_de/mono_en', 'mono_de': '/shared/stores/en_de/mono_de'}"
#
#   --name NAME      of the queued resource and its TPU; one that is there is used
#   --zone ZONE      where
#   --type TYPE      accelerator type: v4-32, v5litepod-16, v5p-32, v6e-16, ...
#   --slices N       slices of that type, joined by the data-center network (default 1)
#   --runtime NAME   software of the TPU VM (default: the plain one for the type)
#   --spot           spot capacity
#   --project P
#   --create OPTION  any other option of queued-resources create, such as --create=--reserved; may be repeated
#   --setup LINE     a line of bash for every host before each run: mounts, copies; may be repeated
#   --attempts N     how often the run is started again after preemptions (default 100)
#   --poll N         seconds between two looks at the state (default 30)
#   --delete         delete the pod when the run has ended well
#   --dry_run        print the commands of one attempt, run nothing
#
# It has to stay running (tmux). Ctrl-C lets the run save and end, and leaves the pod. A pod costs
# money until it is deleted.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

takes='name zone type slices runtime project attempts poll' lists='create setup' switches='spot delete'
name='' zone='' type='' slices=1 runtime='' project='' attempts=100 poll=30 create=() setup=() spot='' delete=''
parse_options "$@"
check_given name zone type
check_number slices
check_number attempts
check_number poll 0
check_command there
[[ $name =~ ^[a-z][a-z0-9-]{0,50}$ ]] || fail "--name $name: lower-case letters, digits and -, a letter first"
if [[ -z $runtime ]]; then
  case $type in
    v2-* | v3-* | v4-*) runtime=tpu-ubuntu2204-base ;;
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) fail "--type $type: its runtime is not known here, give --runtime too" ;;
  esac
fi
git -C "$checkout" rev-parse --git-dir >/dev/null 2>&1 || fail "$checkout is no git checkout: what to send is not known"
[[ -n $dry_run ]] || type -P gcloud >/dev/null || fail "no gcloud here: install the Google Cloud CLI, or see --dry_run"

place=("--zone=$zone" ${project:+"--project=$project"})
queued=(gcloud compute tpus queued-resources)
# One slice is a TPU VM; several are reached through the queued resource, all hosts at a time.
if ((slices == 1)); then
  nodes=("--node-id=$name")
  hosts=(gcloud compute tpus tpu-vm)
  everywhere=(--worker=all "${place[@]}")
else
  nodes=("--node-count=$slices" "--node-prefix=$name")
  hosts=("${queued[@]}")
  everywhere=(--node=all --worker=all --batch-size=all "${place[@]}")
fi

host='bash scaling_jax/launch/tpu_host.sh'

state() {
  "${queued[@]}" describe "$name" "${place[@]}" '--format=value(state.state)' 2>/dev/null || true
}

on_hosts() {
  run "${hosts[@]}" ssh "$name" "${everywhere[@]}" "--command=$1"
}

ask_for_pod() {
  run "${queued[@]}" create "$name" "${nodes[@]}" "--accelerator-type=$type" "--runtime-version=$runtime" \
    "${place[@]}" ${spot:+--spot} ${create[@]+"${create[@]}"}
}

wait_for_pod() {
  local seen='' now
  while now=$(state) && [[ $now != ACTIVE ]]; do
    [[ $now == "$seen" ]] || say "$name is ${now:-not there yet}"
    case $now in
      FAILED) say "see $(quoted "${queued[@]}" describe "$name" "${place[@]}")" && exit 1 ;;
      SUSPENDED) return 1 ;;
      '') [[ -z $seen ]] || return 1 ;;
    esac
    seen=$now
    sleep "$poll"
  done
}

# The files of this checkout that git knows or does not ignore: your own gin files too.
pack() {
  (cd "$checkout" && git ls-files -z --cached --others --exclude-standard | tar -czf "$1" --null -T -)
}

install_on_hosts() {
  local packed=scaling_jax.tar.gz folder=''
  if [[ -n $dry_run ]]; then
    printf '(cd %s && git ls-files -z --cached --others --exclude-standard | tar -czf %s --null -T -)\n' \
      "$(quoted "$checkout")" "\$OLDPWD/$packed"
  else
    folder=$(mktemp -d) && packed=$folder/$packed
    pack "$packed"
    (($(stat -c %s "$packed") < 200000000)) || fail "$checkout packs to more than 200 MB: move data and runs out of it"
  fi
  run "${hosts[@]}" scp "$packed" "$name:scaling_jax.tar.gz" "${everywhere[@]}"
  [[ -z $folder ]] || rm -r "$folder"
  on_hosts "mkdir -p scaling_jax && tar -xzf scaling_jax.tar.gz -C scaling_jax && $host install"
}

start="$host run $(quoted ${setup[@]+"${setup[@]}"} -- "${command[@]}")"

if [[ -n $dry_run ]]; then
  ask_for_pod
  install_on_hosts
  on_hosts "$start"
  [[ -z $delete ]] || run "${queued[@]}" delete "$name" "${place[@]}" --force --quiet
  exit 0
fi

trap 'trap "" INT TERM; say "ending the run on all hosts; $name stays"; on_hosts "$host stop" || true; exit 130' INT TERM

for ((attempt = 1; attempt <= attempts; attempt++)); do
  [[ -n $(state) ]] || ask_for_pod
  code=1
  if wait_for_pod; then
    code=0
    install_on_hosts && on_hosts "$start" || code=$?
  fi
  if ((code == 0)); then
    if [[ -n $delete ]]; then
      "${queued[@]}" delete "$name" "${place[@]}" --force --quiet
    else
      say "done; $name is still there and costs money: $(quoted "${queued[@]}" delete "$name" "${place[@]}" --force)"
    fi
    exit 0
  fi
  ((code != 2)) || exit 2
  sleep "$poll"
  now=$(state)
  if [[ $now != ACTIVE ]]; then
    say "attempt $attempt: $name was taken away (${now:-gone}); asking for it again"
    [[ -z $now ]] || "${queued[@]}" delete "$name" "${place[@]}" --force --quiet
  elif ((code != 143 && code != 255)); then
    say "the run failed with exit code $code; $name is still there"
    exit "$code"
  else
    say "attempt $attempt: exit code $code; going on"
  fi
done
say "given up after $attempts attempts"
exit 1

#!/usr/bin/env bash
# Runs a command on Google Kubernetes Engine through xpk: one run on TPU slices or GPU nodes, or a study as a set of
# independent workloads.
#
#   launch/gke.sh --cluster lab --name base --device v5litepod-256 --image us-docker.pkg.dev/me/lab/scaling_jax:tpu \
#       --storage shared -- scaling-jax pretrain --gin_file gin_configs/runs/pretrain_1b.gin --out /shared/runs/base \
#       --gin.STORE="{'mono_en': '/shared/stores/en_de/mono_en', 'mono_de': '/shared/stores/en_de/mono_de'}"
#
#   --cluster NAME    a cluster that xpk knows (xpk cluster create, or xpk cluster adapt)
#   --name NAME       of the workload; with --shards NAME-1, NAME-2, ...
#   --device TYPE     xpk's --device-type: v5litepod-256, v5p-128, v6e-256, h100-80gb-8, ...
#   --image IMAGE     made with the Dockerfile of this checkout, and pushed
#   --base_image IMAGE  instead: the same, to which xpk adds this folder (your own gin files) as /app
#   --slices N        TPU slices of one run (default 1)
#   --nodes N         GPU nodes of one run (default 1)
#   --shards N        N workloads, the i-th makes part i of the study
#   --storage NAME    a volume made known by xpk storage attach or create; may be repeated
#   --restarts N      how often a preempted run goes on (default 100)
#   --grace N         seconds in which a preempted run may save (default 300; spot machines give about 30)
#   --zone ZONE, --project P
#   --xpk OPTION      any other option of xpk workload create, such as --xpk=--priority=high; may be repeated
#   --setup LINE      a line of bash in every container before the run; may be repeated
#   --dry_run         print the commands, run nothing
#
# A run that is preempted saves, ends with 143 and is started again. Input that cannot be used (2) is not tried again.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

takes='cluster name device image base_image slices nodes shards restarts grace zone project'
lists='storage xpk setup' switches=''
cluster='' name='' device='' image='' base_image='' slices=1 nodes=1 shards='' restarts=100 grace=300 zone='' project=''
storage=() xpk=() setup=()
parse_options "$@"
check_given cluster name device
check_command there
check_shards
check_number slices
check_number nodes
check_number restarts 0
check_number grace
[[ $name =~ ^[a-z][a-z0-9-]{0,29}$ ]] || fail "--name $name: up to 30 lower-case letters, digits and -, a letter first"
[[ -n $image$base_image ]] || fail "--image or --base_image is needed (see --help)"
[[ -z $image || -z $base_image ]] || fail "give --image or --base_image, not both"
[[ -n $dry_run ]] || type -P xpk >/dev/null || fail "no xpk here: pip install xpk, or see --dry_run"

# Words for bash inside YAML, where xpk writes them as a block and, for GPUs, once more between double quotes, and
# where Kubernetes would expand $(NAME): what could be misread becomes \xHH, which only bash reads back.
quoted_in_yaml() {
  local LC_ALL=C word separator='' character i written
  for word; do
    if [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
      written=$word
    else
      written="\$'"
      for ((i = 0; i < ${#word}; i++)); do
        character=${word:i:1}
        [[ $character != [\'\"\\\$[:cntrl:]] ]] || printf -v character '\\x%02x' "'$character"
        written+=$character
      done
      written+="'"
    fi
    printf '%s%s' "$separator" "$written"
    separator=' '
  done
}

options=("--cluster=$cluster" "--device-type=$device" "--num-slices=$slices" "--num-nodes=$nodes")
options+=("--max-restarts=$restarts" "--termination-grace-period-seconds=$grace")
[[ -z $image ]] || options+=("--docker-image=$image")
[[ -z $base_image ]] || options+=("--base-docker-image=$base_image" "--script-dir=$PWD")
for volume in ${storage[@]+"${storage[@]}"}; do options+=("--storage=$volume"); done
[[ -z $zone ]] || options+=("--zone=$zone")
[[ -z $project ]] || options+=("--project=$project")
options+=(${xpk[@]+"${xpk[@]}"})

# submit NAME WORD...: exec, so that Kubernetes' SIGTERM reaches the run and not a shell before it.
submit() {
  local workload=$1 words=(${setup[@]+"${setup[@]}"} -- "${command[@]}" "${@:2}")
  run xpk workload create "--workload=$workload" "${options[@]}" \
    "--command=exec bash /opt/scaling_jax/launch/gke_pod.sh $(quoted_in_yaml "${words[@]}")"
}

if [[ -z $shards ]]; then
  submit "$name"
else
  for ((i = 1; i <= shards; i++)); do submit "$name-$i" --shard "$i/$shards"; done
fi

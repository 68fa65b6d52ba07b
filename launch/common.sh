# shellcheck shell=bash
# What the scripts beside this file share: their options, quoting, and the checks before anything is started.
# Not run by itself.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Ends the script as bad input does in every verb: one line, exit code 2.
fail() {
  printf '%s: error: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) || fail "bash 5.1 or newer is needed, this is $BASH_VERSION"

say() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# The comment at the top of a script is its --help.
usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

# Words as bash reads them back, on one line.
quoted() {
  local word separator=''
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    printf '%s%s' "$separator" "$word"
    separator=' '
  done
}

# parse_options WORD...: every option that is given sets the variable of its name, and `command` becomes what
# follows `--`. The script has set the defaults, and says what there is: `takes` (options with a value), `lists`
# (with a value, again and again: an array) and `switches` (without a value: 1).
# shellcheck disable=SC2154
parse_options() {
  local _word _option _value  # names that no option has
  dry_run='' command=()
  while (($#)); do
    _word=$1 _option=${1#--} _option=${_option%%=*}
    shift
    case $_word in
      --help | -h) usage && exit 0 ;;
      --) command=("$@") && return ;;
      --?*) ;;
      *) fail "unexpected $(quoted "$_word"): options first, then -- and the command" ;;
    esac
    if [[ " dry_run $switches " == *" $_option "* ]]; then
      [[ $_word != *=* ]] || fail "--$_option takes no value"
      printf -v "$_option" 1
      continue
    fi
    [[ " $takes $lists " == *" $_option "* ]] || fail "unknown option --$_option (see --help)"
    if [[ $_word == *=* ]]; then
      _value=${_word#*=}
    else
      (($#)) || fail "--$_option needs a value"
      _value=$1 && shift
    fi
    if [[ " $lists " == *" $_option "* ]]; then
      local -n _list=$_option
      _list+=("$_value")
    else
      printf -v "$_option" '%s' "$_value"
    fi
  done
}

# check_number NAME [SMALLEST]: the option is a whole number.
check_number() {
  if [[ ! ${!1} =~ ^[0-9]{1,9}$ ]] || ((10#${!1} < ${2:-1})); then
    fail "--$1 ${!1}: a whole number from ${2:-1} is needed"
  fi
}

check_given() {
  local name
  for name; do [[ -n ${!name} ]] || fail "--$name is needed (see --help)"; done
}

# check_command WHERE: there is a command, and every gin file that it names, as the verbs look for it. An absolute
# path is looked for only where the command runs on a file system that this machine has (WHERE=here).
check_command() {
  ((${#command[@]})) || fail "no command: write -- scaling-jax VERB ... at the end (see --help)"
  local i word paths=() files=() folder file
  for ((i = 0; i < ${#command[@]}; i++)); do
    word=${command[i]}
    case $word in
      --gin_file) files+=("${command[i + 1]:-}") ;;
      --gin_file=*) files+=("${word#*=}") ;;
      --gin_search_paths) IFS=, read -r -a paths <<<"${command[i + 1]:-}" ;;
      --gin_search_paths=*) IFS=, read -r -a paths <<<"${word#*=}" ;;
    esac
  done
  for file in ${files[@]+"${files[@]}"}; do
    [[ $file != /* || $1 == here ]] || continue
    for folder in '' ${paths[@]+"${paths[@]}"} "$checkout"; do
      [[ $file == /* ]] && folder=''
      [[ ! -f ${folder:+$folder/}$file ]] || continue 2
    done
    fail "no gin file $file: looked in the working folder, ${paths[*]:+${paths[*]}, }$checkout"
  done
}

# Only a study knows how to do a part of itself.
check_shards() {
  [[ -n $shards ]] || return 0
  check_number shards
  [[ " ${command[*]} " == *" study "* ]] || fail "--shards is for scaling-jax study, whose runs can be shared out"
}

# run WORD...: runs a command, or prints it where nothing is to be done.
run() {
  if [[ -n $dry_run ]]; then
    quoted "$@"
    printf '\n'
  else
    "$@"
  fi
}

# shellcheck shell=bash
# shellcheck disable=SC2154  # the options' variables are the scripts'
# Shared by the scripts for Kubernetes: checks of values that stand in a manifest, and filling it in.
# Sourced after common.sh, not run.

# need_plain_names OPTION …: values that are put into the manifest unquoted must not change its
# structure.
need_plain_names() {
  local option
  for option; do
    [[ "${!option}" =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] ||
      fail "--$option=${!option}: must be at most 40 lower-case letters, digits and dashes"
  done
}

# need_image_names OPTION …
need_image_names() {
  local option
  for option; do
    [[ "${!option}" =~ ^[A-Za-z0-9][A-Za-z0-9./:@_-]*$ ]] ||
      fail "--$option=${!option}: is not a name"
  done
}

# need_shared_paths OPTION: that folder below /shared, and the data there or in a bucket.
need_shared_paths() {
  [[ "${!1}" == /shared/?* ]] || fail "--$1=${!1}: must be below /shared, the volume"
  [[ "$data_dir" == /shared/?* || "$data_dir" == gs://?* ]] ||
    fail "--data_dir=$data_dir: must be gs:// or below /shared, the volume"
}

# arguments WORD …: prints them as a YAML list of JSON strings. Kubernetes replaces $(NAME) in args,
# so $( is written as $$(.
arguments() {
  local word list="" plain
  for word; do
    [[ "$word" != *[[:cntrl:]]* ]] || fail "a flag after -- holds a line break or a tab"
    plain="${word//\\/\\\\}"
    plain="${plain//\"/\\\"}"
    list+="\"${plain//\$(/\$\$(}\", "
  done
  printf '[%s]' "${list%, }"
}

# manifest FILE NAME=VALUE …: prints the file with each ${NAME} replaced. Only these names are, so that
# shell variables in the manifest stay.
manifest() {
  local text pair
  text="$(<"$root/launch/$1")"
  for pair in "${@:2}"; do
    # Quoted, so that & and \ in a value are plain characters in every bash.
    text="${text//"\${${pair%%=*}}"/"${pair#*=}"}"
  done
  printf '%s\n' "$text"
}

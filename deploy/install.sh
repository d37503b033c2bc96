#!/bin/bash
# Installs orch on this server, as a controller or as a node. Run again it upgrades.
set -euo pipefail
export PATH=$PATH:/usr/local/bin:/usr/sbin:/sbin

usage() {
  cat <<'END'
Usage:
  install.sh controller [options]   set up a controller
  install.sh agent --join HOST:PORT --token TOKEN [options]
                                    set up a node and let it join
  install.sh uninstall [--purge]    take the programs away; data and settings stay,
                                    unless --purge: then containers and volumes go, too

Options:
  --token TOKEN        join token; "-" reads it from standard input, ORCH_TOKEN has it too
  --token-file FILE    file that holds it (it is copied to /etc/orch/token)
  --label KEY=VALUE    label of the node; repeat for more
  --bin-dir DIR        folder of the programs, or of Debian packages (default: this script's)
  --no-start           install, but start nothing
  --no-packages        do not install what is missing with apt-get
  --NAME VALUE         any other setting: a flag of the agent or the controller, such as
                       --listen 10.0.0.1:7070, --name n1, --capacity cpu=2,memory=4Gi

Debian 12 or later, Ubuntu 22.04 or later; as root. Settings are written to /etc/orch. A
second run upgrades the programs and restarts them; it touches no container.
END
}

step() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }
misuse() { printf 'install.sh: %s; install.sh --help says how\n' "$*" >&2; exit 2; }

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
etc=/etc/orch
lib=/usr/local/lib/orch
bin=/usr/local/bin
units=/etc/systemd/system
data=/var/lib/orch
# What this script has written, so that it knows what somebody else has changed since.
written=$data/install

role='' bin_dir='' token='' token_file='' start=1 packages=1 purge=''
restart='' example='' unit_file='' new=''
trap '[ -z "$new" ] || rm -f "$new"' EXIT
keys=() values=() # settings, in the order in which they were given

set_to() { keys+=("$1"); values+=("$2"); }

read_arguments() {
  [ $# -gt 0 ] || { usage >&2; exit 2; }
  case $1 in
    controller | agent | uninstall) role=$1 ;;
    -h | --help | help) usage; exit 0 ;;
    *) misuse "\"$1\" is neither controller, agent nor uninstall" ;;
  esac
  shift
  while [ $# -gt 0 ]; do
    local name=$1 value='' given=''
    shift
    case $name in
      -h | --help) usage; exit 0 ;;
      --no-start) start=''; continue ;;
      --no-packages) packages=''; continue ;;
      --purge) purge=1; continue ;;
      --?*=*) value=${name#*=}; name=${name%%=*}; given=1 ;;
      --?*) ;;
      *) misuse "unexpected \"$name\"" ;;
    esac
    if [ -z "$given" ]; then
      [ $# -gt 0 ] || misuse "$name needs a value"
      value=$1
      shift
    fi
    case $name in
      --bin-dir) bin_dir=$value ;;
      --token) token=$value ;;
      --token-file) token_file=$value ;;
      --config) misuse "--config: this script writes $etc/$role.yaml" ;;
      *) set_to "${name#--}" "$value" ;;
    esac
  done
  [ -z "$purge" ] || [ "$role" = uninstall ] || misuse "--purge goes with uninstall"
  [ "$role" != uninstall ] || [ ${#keys[@]} -eq 0 ] || misuse "uninstall takes --purge, and nothing else"
  [ "$role" != controller ] || [ -z "$token$token_file" ] || misuse "a controller takes no token"
  bin_dir=${bin_dir:-$here}
}

systemd_runs() { [ -d /run/systemd/system ]; }

has() { command -v "$1" >/dev/null 2>&1; }

# ---- What must be there before

check_system() {
  [ "$(id -u)" = 0 ] || die "run it as root: sudo $0 ..."
  has apt-get || die "this is made for Debian 12 or later and Ubuntu 22.04 or later, and there is no apt-get here; docs/install.md says how to do it by hand"
}

# missing_packages names what the agent needs and this machine lacks. Any containerd will
# do: containerd.io of Docker has its own runc.
missing_packages() {
  has containerd || echo containerd
  has runc || echo runc
  has nft || echo nftables
  has ip || echo iproute2
  [ -x /usr/lib/cni/ptp ] || [ -x /opt/cni/bin/ptp ] || echo containernetworking-plugins
}

install_packages() {
  local list
  mapfile -t list < <(missing_packages)
  if [ ${#list[@]} -eq 0 ]; then
    note "containerd, runc, CNI plugins, nftables and iproute2 are there"
    return
  fi
  [ -n "$packages" ] || die "missing: ${list[*]}; install them: apt-get install ${list[*]}"
  note "installing ${list[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || die "apt-get update failed (see above); install ${list[*]} yourself, then run this again"
  apt-get install -y -qq --no-install-recommends "${list[@]}" >/dev/null || die "apt-get install ${list[*]} failed (see above)"
}

start_containerd() {
  systemd_runs && [ -n "$start" ] || return 0
  systemctl enable --now --quiet containerd || die "containerd does not start: systemctl status containerd says why"
}

# ---- Settings

quoted() { printf "'%s'" "${1//\'/\'\'}"; }

# settings prints the keys that were given; what was given more than once is a list.
settings() {
  local i j name seen=' '
  for i in "${!keys[@]}"; do
    name=${keys[$i]}
    [[ $seen != *" $name "* ]] || continue
    seen+="$name "
    local list=()
    for j in "${!keys[@]}"; do
      [ "${keys[$j]}" != "$name" ] || list+=("$(quoted "${values[$j]}")")
    done
    if [ ${#list[@]} -eq 1 ]; then
      printf '%s: %s\n' "$name" "${list[0]}"
    else
      printf '%s: [%s]\n' "$name" "$(IFS=,; printf '%s' "${list[*]}")"
    fi
  done
}

sum() { sha256sum <"$1" | cut -d' ' -f1; }

# place_settings keeps a file that somebody has changed since it was written here.
place_settings() {
  local new=$1 to=$etc/$role.yaml
  mkdir -p "$etc" "$written"
  if [ ! -e "$to" ]; then
    note "settings: $to"
  elif [ ${#keys[@]} -eq 0 ]; then
    note "settings: $to stays as it is"
    return
  elif cmp -s "$new" "$to"; then
    note "settings: $to is as it was"
    return
  elif [ "$(cat "$written/$role.yaml.sum" 2>/dev/null)" != "$(sum "$to")" ] && ! cmp -s "${example:-/dev/null}" "$to"; then
    install -m 0644 "$new" "$to.new"
    note "settings: $to was changed by hand and stays; what this run would have written is in $to.new"
    return
  else
    note "settings: $to, written anew"
  fi
  install -m 0644 "$new" "$to"
  sum "$to" >"$written/$role.yaml.sum"
  restart=1
}

# place_token puts the token where only root reads it.
place_token() {
  if [ -n "$token_file" ]; then
    token=$(cat -- "$token_file") || die "cannot read the token"
  elif [ "$token" = - ]; then
    IFS= read -r token || [ -n "$token" ] || die "no token came in"
  fi
  token=${token:-${ORCH_TOKEN:-}}
  unset ORCH_TOKEN
  [ -n "$token" ] || return 0
  mkdir -p "$etc"
  (umask 077 && printf '%s\n' "$token" >"$etc/token.tmp" && mv "$etc/token.tmp" "$etc/token")
  note "token: $etc/token"
}

# ---- Programs

programs() {
  case $role in
    agent) echo agent shim ;;
    controller) echo controller orchctl ;;
  esac
}

# from_packages tells whether the folder has Debian packages rather than programs.
from_packages() {
  [ ! -x "$bin_dir/$role" ] && compgen -G "$bin_dir/orch-${role}_*.deb" >/dev/null
}

newest() { printf '%s\n' "$bin_dir/$1"_*.deb | sort -V | tail -1; }

install_debs() {
  local list=("$(newest "orch-$role")")
  [ "$role" != controller ] || list+=("$(newest orchctl)")
  note "${list[*]##*/}"
  export DEBIAN_FRONTEND=noninteractive
  # What an earlier run put beside them would go before them.
  rm -f "$units/orch-$role.service" "$bin/orch-$role"
  apt-get install -y -qq -o Dpkg::Options::=--force-confold "${list[@]}" >/dev/null || die "apt-get install failed (see above)"
  lib=/usr/lib/orch
  restart=1
}

# put installs a file at once or not at all: what runs keeps the old one.
put() {
  local mode=$1 from=$2 to=$3
  ! cmp -s "$from" "$to" || return 0
  install -m "$mode" "$from" "$to.tmp"
  mv "$to.tmp" "$to"
  note "$to"
  restart=1
}

install_programs() {
  local p
  ! dpkg-query -W -f '${Status}' "orch-$role" 2>/dev/null | grep -q 'ok installed' ||
    die "the package orch-$role is installed: upgrade it by its package (apt-get install ./orch-${role}_VERSION.deb), or remove it first"
  mkdir -p "$lib" "$bin" "$units"
  for p in $(programs); do
    put 0755 "$bin_dir/$p" "$lib/$p"
    case $p in
      orchctl) ln -sfn "$lib/orchctl" "$bin/orchctl" ;;
      shim) ;;
      *) ln -sfn "$lib/$p" "$bin/orch-$p" ;;
    esac
  done
  local unit
  unit=$(mktemp)
  sed "s|^ExecStart=/usr/lib/orch/|ExecStart=$lib/|" "$unit_file" >"$unit"
  put 0644 "$unit" "$units/orch-$role.service"
  rm -f "$unit"
}

# find_files looks for what this script needs beside the programs or beside itself: it
# lies in deploy/ of the sources, or with everything else in one folder.
find_files() {
  local p at
  if from_packages; then
    return
  fi
  if [ ! -x "$bin_dir/$role" ] && [ -x "$here/../bin/$role" ]; then
    bin_dir=$(cd -- "$here/../bin" && pwd)
  fi
  for p in $(programs); do
    [ -x "$bin_dir/$p" ] || die "no program $p in $bin_dir: say where it is with --bin-dir, or build it (make build)"
  done
  unit_file=''
  for at in "$bin_dir" "$here" "$here/systemd"; do
    [ ! -f "$at/orch-$role.service" ] || unit_file=$at/orch-$role.service
  done
  [ -n "$unit_file" ] || die "orch-$role.service is neither in $bin_dir nor beside this script: take all files of the release"
}

example() {
  local at
  for at in "$bin_dir" "$here" "/usr/share/doc/orch-$role"; do
    [ ! -f "$at/$role.yaml" ] || { printf '%s' "$at/$role.yaml"; return; }
  done
}

# ---- The roles

preflight() {
  local config=$1 program=$2
  step "Looking at this machine"
  if "$program" check --config "$config"; then
    return
  fi
  [ -z "$start" ] && { note "nothing is started: mend what failed before you do"; return; }
  die "this machine is not ready: mend what failed above, then run this again (nothing was started)"
}

install_role() {
  local joined=''
  check_system
  find_files
  if [ "$role" = agent ]; then
    step "Packages"
    install_packages
    start_containerd
    [ ! -e "$data/agent/pki/tls.crt" ] || joined=1
  fi
  step "Settings"
  [ "$role" != agent ] || place_token
  if [ "$role" = agent ] && { [ ! -e "$etc/agent.yaml" ] || [ ${#keys[@]} -gt 0 ]; }; then
    [[ " ${keys[*]} " == *' join '* ]] || misuse "say which controller to join: --join HOST:PORT (settings that are given take the place of all that were)"
    [ -n "$joined" ] || [ -s "$etc/token" ] || misuse "give a join token with --token or --token-file; \"orchctl token create\" prints one"
  fi
  if [ "$role" = agent ] && [ ${#keys[@]} -gt 0 ] && [ -s "$etc/token" ]; then
    set_to token-file "$etc/token"
  fi
  new=$(mktemp)
  if from_packages; then # which bring the example, and the program that checks
    step "Programs"
    install_debs
  fi
  example=$(example)
  { printf '# Written by install.sh.\n\n'; settings; [ -z "$example" ] || { printf '\n'; cat "$example"; }; } >"$new"
  chmod 0600 "$new"
  local look=$new program=$bin_dir/$role
  [ ${#keys[@]} -gt 0 ] || [ ! -e "$etc/$role.yaml" ] || look=$etc/$role.yaml
  ! from_packages || program=$lib/$role
  preflight "$look" "$program"
  step "Programs and settings"
  place_settings "$new"
  from_packages || install_programs
  note "$("$lib/$role" --version)"
  run_role
}

run_role() {
  local unit=orch-$role.service
  [ "$role" != controller ] || mkdir -p /root/.config/orch # where the unit may write, if it is there
  if ! systemd_runs; then
    step "Installed; systemd does not run here"
    note "start it by hand, under what restarts it: $lib/$role"
    next_steps
    return
  fi
  systemctl daemon-reload
  if [ -z "$start" ]; then
    step "Installed, not started"
    note "systemctl enable --now $unit"
    next_steps
    return
  fi
  step "Starting $unit"
  systemctl enable --quiet "$unit"
  if systemctl is-active --quiet "$unit"; then
    [ -z "$restart" ] || timeout 90 systemctl restart "$unit" || failed "$unit"
  else
    timeout 90 systemctl start "$unit" || failed "$unit"
  fi
  note "$unit runs"
  next_steps
}

failed() {
  journalctl -u "$1" -n 20 --no-pager 2>/dev/null || true
  die "$1 does not start: its last words are above; journalctl -u $1 has all"
}

next_steps() {
  step "Next"
  case $role in
    agent)
      note "on the controller: orchctl get nodes"
      note "this node's settings: $etc/agent.yaml; after a change: systemctl restart orch-agent"
      ;;
    controller)
      local fresh='' address
      if systemd_runs && [ -n "$start" ]; then
        fresh=$(fresh_token)
      fi
      address=$(controller_address)
      note "on each server that is to be a node, with the files of this release:"
      note "  ./install.sh agent --join $address --token ${fresh:-TOKEN}"
      [ -n "$fresh" ] || note "  (orchctl token create prints a TOKEN once the controller runs)"
      note "then: orchctl get nodes"
      ;;
  esac
}

# fresh_token waits for the controller to lead; only then it gives out tokens.
fresh_token() {
  local i
  for i in $(seq 30); do
    if HOME=/root orchctl token create --role node 2>/dev/null | grep -m1 .; then
      return
    fi
    sleep 1
  done
}

controller_address() {
  local at
  at=$(sed -n "s/^advertise: *'\{0,1\}\([^']*\)'\{0,1\}$/\1/p" "$etc/controller.yaml" | head -1)
  [ -n "$at" ] || at=$(sed -n "s/^listen: *'\{0,1\}\([^']*\)'\{0,1\}$/\1/p" "$etc/controller.yaml" | head -1)
  case $at in
    '' | :* | 0.0.0.0:*) at=$(hostname -I 2>/dev/null | cut -d' ' -f1):${at##*:} ;;
  esac
  [ "${at##*:}" != '' ] || at=${at}7070
  printf '%s' "$at"
}

uninstall() {
  local r p
  [ "$(id -u)" = 0 ] || die "run it as root"
  for r in agent controller; do
    [ -e "$units/orch-$r.service" ] || [ -e "$lib/$r" ] || continue
    step "Removing the $r"
    if systemd_runs; then
      systemctl disable --now --quiet "orch-$r.service" || true
    fi
    if [ "$r" = agent ] && [ -n "$purge" ]; then
      "$lib/agent" purge --yes --volumes || die "what is left of this node is above; nothing was uninstalled"
    elif [ "$r" = agent ]; then
      note "containers run on, and nobody looks after them any more; --purge ends them"
    fi
    rm -f "$units/orch-$r.service" "$lib/$r" "$bin/orch-$r" "$written/$r.yaml.sum"
    if [ -n "$purge" ]; then
      [ "$r" != agent ] || rm -f "$lib/shim"
      rm -rf "${data:?}/$r" "$etc/$r.yaml" "$etc/$r.yaml.new"
      [ "$r" != agent ] || rm -f "$etc/token"
    fi
    [ "$r" != controller ] || rm -f "$lib/orchctl" "$bin/orchctl"
  done
  ! systemd_runs || systemctl daemon-reload
  rmdir "$lib" "$written" "$data" "$etc" 2>/dev/null || true
  for p in agent controller; do
    ! dpkg-query -W -f '${Status}' "orch-$p" 2>/dev/null | grep -q 'ok installed' || note "the package orch-$p is there: apt-get remove orch-$p"
  done
  if [ -z "$purge" ]; then
    note "settings in $etc and data in $data stay; --purge takes them away"
  fi
}

read_arguments "$@"
if [ "$role" = uninstall ]; then
  uninstall
else
  install_role
fi

#!/bin/sh
# demo.sh - the main job, shown: a tracker, a seeder and a fetcher on this
# machine, one file, and a look at whether it arrived. Run by "make demo".
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
pids=

clean_up() {
	for pid in $pids; do
		kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || :
	done
	rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

# Waits, ten seconds at most, until the file $1 has a line with $2 in it.
wait_for() {
	tries=0
	until grep -q "$2" "$1"; do
		tries=$((tries + 1))
		[ $tries -lt 100 ] || { echo "demo: nothing says '$2'" >&2; exit 1; }
		sleep 0.1
	done
}

# The port in the line that a server prints when it listens.
port_of() {
	wait_for "$1" '^listening on'
	sed -n 's/^listening on .*://p' "$1"
}

step() {
	printf '\n== %s\n   $ %s\n' "$1" "$2"
}

mkdir "$dir/seeder" "$dir/fetcher"
cd "$dir"
printf 'In %s: a file of 64 MiB that nobody has seen before.\n' "$dir"
head -c 67108864 /dev/urandom >seeder/film

step 'A metafile: the SHA-256 of every chunk' 'mkcascade seeder/film'
"$here/mkcascade" seeder/film
ls -l seeder

step 'A tracker: it knows the peers' 'tracker -a 127.0.0.1 -p 0'
"$here/tracker" -a 127.0.0.1 -p 0 >tracker.out 2>tracker.err &
pids="$pids $!"
tracker=$(port_of tracker.out)
cat tracker.out

step 'A peer that has the file, and sends 24 MiB a second at most' \
	"cascade --max-upload 24M seeder/film.cascade 127.0.0.1 $tracker 127.0.0.1 0"
"$here/cascade" --max-upload 24M seeder/film.cascade 127.0.0.1 "$tracker" 127.0.0.1 0 >seeder.out &
pids="$pids $!"
wait_for tracker.err 'is new'
cat seeder.out tracker.err

cp seeder/film.cascade fetcher
step 'A peer that has only the metafile, and exits when it has the file' \
	"cascade -c fetcher/film.cascade 127.0.0.1 $tracker 127.0.0.1 0"
"$here/cascade" -c fetcher/film.cascade 127.0.0.1 "$tracker" 127.0.0.1 0

step 'Is it the same file?' 'cmp seeder/film fetcher/film'
cmp seeder/film fetcher/film
echo 'Yes, byte for byte.'
printf '\nREADME.md tells how to do this by hand, and between machines.\n'

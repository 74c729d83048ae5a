# Completion for bash: cascade, tracker, mkcascade and cascade-push.

_cascade_words() {
	local word
	COMPREPLY=()
	while IFS= read -r word; do
		COMPREPLY+=("$word")
	done < <(compgen "$@" -- "$cur")
}

_cascade() {
	local cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} name=${COMP_WORDS[0]##*/} options
	case $name in
	cascade) options='--client-only --output --force --from --peer --max-clients --max-upload --max-download --verify-whole --fsync
		--verify-on-send --user --jobs --order --timeout --give-up --linger --status --timestamps --quiet --verbose
		--help --version' ;;
	tracker) options='--address --port --good --ban-private --list --timestamps --quiet --verbose --help --version' ;;
	mkcascade) options='--chunk-size --output --help --version' ;;
	cascade-push) options='--hosts --to --ssh --jobs --port --address --temp --give-up --force --quiet
		--help --version' ;;
	esac
	case $name:$before in
	cascade:--user | cascade:-u) _cascade_words -u ;;
	cascade:--order) _cascade_words -W ascending ;;
	cascade:--peer) _cascade_words -A hostname ;;
	*:-o | *:--output | *:--from | *:--status | *:--hosts | *:--temp) _cascade_words -f ;;
	*)
		case $cur in
		-*) _cascade_words -W "$options" ;;
		*)
			case $name in
			cascade | tracker) _cascade_words -f -X '!*.cascade' ;;
			cascade-push) _cascade_words -f -A hostname ;;
			*) _cascade_words -f ;;
			esac ;;
		esac ;;
	esac
}

complete -o filenames -o bashdefault -F _cascade cascade tracker mkcascade cascade-push

#!/bin/bash
# The documents name what is there: files, headings, make targets, functions, guest functions with
# their types, environment variables. The README's C example compiles and prints what it says.
set -uo pipefail
export LC_ALL=C.UTF-8
ROOT=${ROOT:-$(cd "$(dirname "$0")/../.." && pwd)} OUT=${OUT:-$ROOT/build/test}
cd "$ROOT" || exit 1
mkdir -p "$OUT"

documents=(README.md ARCHITECTURE.md CHANGELOG.md docs/*.md)
faults=0
fault() {
    echo "$*"
    faults=$((faults + 1))
}

# anchors DOCUMENT: what its headings are called in links.
anchors() {
    sed '/^```/,/^```/d' "$1" | sed -nE 's/^#+ +//p' | tr '[:upper:]' '[:lower:]' |
        sed -E 's/[^a-z0-9 _-]//g; s/ /-/g' |
        awk '{ print seen[$0]++ ? $0 "-" (seen[$0] - 1) : $0 }'
}

for document in "${documents[@]}"; do
    folder=$(dirname "$document")
    for link in $(grep -oE '\]\([^)]+\)' "$document" | sed -E 's/^\]\(//; s/\)$//' | grep -v '^https:' | sort -u); do
        file=$document anchor=
        [ "${link%%#*}" = "" ] || file=$folder/${link%%#*}
        [[ $link != *#* ]] || anchor=${link#*#}
        if [ ! -e "$file" ]; then
            fault "$document links to $link, which does not exist"
        elif [ -n "$anchor" ] && ! anchors "$file" | grep -x -- "$anchor" >/dev/null; then
            fault "$document links to $link: no such heading"
        fi
    done

    # Paths from the root, wherever they stand, and files by their last names between backquotes.
    for path in $(grep -oE '(^|[^A-Za-z0-9_/.-])(src|tests|docs|c-examples|examples|include|tools|packaging)/[A-Za-z0-9_./*-]*' "$document" |
        sed -E 's/^[^A-Za-z]//; s/[./]$//; s/\*\*/*/' | sort -u); do
        compgen -G "$path" >/dev/null || fault "$document names $path, which does not exist"
    done
    for name in $(grep -oE '`[A-Za-z0-9_./-]+\.(rs|c|h|sh|py|md|toml|txt)`' "$document" | tr -d '`' | sort -u); do
        [ -n "$(find . -path ./target -prune -o -path ./build -prune -o -path "*/$name" -print -quit)" ] ||
            fault "$document names $name, which does not exist"
    done

    for target in $(sed -nE '/^```sh/,/^```$/s/^(sudo )?make ([a-z]+).*/\2/p' "$document"; grep -oE '`([A-Z_]+=[^ `]+ |sudo )?make [a-z]+' "$document" | sed 's/.* //'); do
        grep -q "^$target:" Makefile || fault "$document names the make target $target, which does not exist"
    done

    # A name that ends in _ is the beginning of several.
    for name in $(grep -oE '\bextism_[a-z_]+' "$document" | sort -u); do
        [ "$name" = extism_sys ] && continue # the Python package
        case $name in *_) pattern="^$name" ;; *) pattern="^$name\$" ;; esac
        grep -q "$pattern" tests/abi/symbols.txt || fault "$document names the function $name, which does not exist"
    done
done

for name in $(cat tests/abi/symbols.txt); do
    grep -q "\b$name(" include/extism.h || fault "tests/abi/symbols.txt has $name, include/extism.h has not"
done

# Guest functions: name and type, as the table in the code has them and as docs/abi.md has them.
sed -nE 's/^ *entry\("([a-z0-9_]+)", ([A-Z]+), (I32|I64|None), .*/\1 \2 \3/p' src/guest/table.rs |
    sed -E 's/ NONE / () /; s/ ONE / (i64) /; s/ TWO / (i64,i64) /; s/ BYTE / (i64,i32) /; s/ I32$/->i32/; s/ I64$/->i64/; s/ None$//' |
    sort >"$OUT/guest-functions.code"
sed -nE 's/^\| `([a-z0-9_]+)` \| `(\([^`]*)` \|.*/\1 \2/p' docs/abi.md |
    sed -E 's/[a-z]+: //g; s/, /,/g; s/ -> /->/' | sort >"$OUT/guest-functions.docs"
[ "$(wc -l <"$OUT/guest-functions.code")" -eq "$(grep -c '^ *entry("' src/guest/table.rs)" ] ||
    fault "src/guest/table.rs has entries that this step cannot read"
diff -u "$OUT/guest-functions.code" "$OUT/guest-functions.docs" || fault "docs/abi.md has other guest functions than src/guest/table.rs"
count=$(wc -l <"$OUT/guest-functions.code")
grep -q "There are $count\." docs/abi.md || fault "docs/abi.md has another number of guest functions than $count"

# Environment variables: what the code reads stands in the README's table, and the other way round.
read_by_code=$(grep -rhoE '"EXTISM_[A-Z_]+"|env::var(_os)?\("[A-Z_]+"' src --include='*.rs' | grep -oE '[A-Z_]{4,}' | sort -u)
for name in $read_by_code; do
    grep -q "^| .*\`$name\`.* |" README.md || fault "README.md does not have the environment variable $name"
done
for name in $(sed -nE 's/^\| `(EXTISM_[A-Z_]+)` \|.*/\1/p' README.md); do
    grep -qx "$name" <<<"$read_by_code" || grep -q "^| \`$name\` .*no effect yet" README.md ||
        fault "README.md has the environment variable $name, which nothing reads"
done

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
grep -q "^## \[$version\]" CHANGELOG.md || fault "CHANGELOG.md has nothing about version $version"

if [ -n "${EXTISM_LIB:-}" ]; then
    sed -n '/^```c$/,/^```$/p' README.md | grep -v '^```' >"$OUT/readme.c"
    libraries=$(dirname "$EXTISM_LIB")
    if ${CC:-cc} -std=c99 -Wall -Wextra -pedantic -Werror -Iinclude "$OUT/readme.c" -o "$OUT/readme" \
        -L"$libraries" -lextism -Wl,-rpath,"$libraries"; then
        printed=$(cd c-examples && "$OUT/readme")
        grep -qF "it prints \`$printed\`" README.md || fault "the README's example printed: $printed"
    else
        fault "the README's example does not compile"
    fi
fi

[ $faults -eq 0 ]

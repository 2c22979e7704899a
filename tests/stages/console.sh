#!/usr/bin/env bash
# the console in a real headless Chromium
# needs: docker browser python rmqctl rmqload
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
owns_cluster
# --no-sandbox: the browser shows only pages of our own, and root has no sandbox to give.
browse() { # URL: the document as it stands after scripts ran
    timeout 60 "$CHROMIUM" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$work/profile" \
        --window-size=1280,900 --virtual-time-budget=8000 "${@:2}" --dump-dom "$1"
}
comes_up() {
    up --masters 2 --slaves 2
    produce Orders 1000 "$work/orders.log"
}
shows_the_cluster() {
    browse "http://$console/" >"$work/page.html"
    has "$work/page.html" broker-a broker-b "127\.0\.0\.1:$((10911 + offset))|rmqmaster1:$((10911 + offset))" Orders
}
asks_nobody_else() {
    curl -fsS "http://$console/" >"$work/raw.html"
    ! grep -oE "(src|href)=[\"']?(https?:)?//[^\"' >]+" "$work/raw.html" || fail "the page loads something from elsewhere"
}
refuses_other_hosts() { # DNS rebinding: a page elsewhere that resolves to this address gets nothing.
    local code; code=$(curl -sS -o /dev/null -w '%{http_code}' -H 'Host: evil.example' "http://$console/")
    case $code in 4??) ;; *) fail "answered $code to Host: evil.example" ;; esac
}
check comes_up comes_up
[ "$last" = 0 ] || exit 1
for c in shows_the_cluster asks_nobody_else refuses_other_hosts; do check "$c" "$c"; done
[ "$failed" = 0 ]

# One account's MetaTrader 5 and its streamapp terminal in Wine: docs/linux.md. Never run on a live account; not part of our tests.
FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7 AS wheel
WORKDIR /source
COPY pyproject.toml README.md ./
COPY streamapp streamapp
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl wine wine64 xvfb x11vnc xauth \
    && rm -rf /var/lib/apt/lists/* && useradd --create-home trader && mkdir /wine /data && chown trader /wine /data
COPY --from=wheel --chown=trader /dist /streamapp
COPY --chmod=755 <<'EOF' /usr/local/bin/streamapp-wine
#!/bin/sh
# setup | terminals [--check] | conformance ...: in Wine, on a screen that nobody sees.
set -eu
PYTHON='C:\Python311\python.exe'
start_screen() { Xvfb :0 -screen 0 1280x800x24 >/dev/null 2>&1 & sleep 2; }
case "${1:-terminals}" in
setup)
    start_screen
    cd /tmp
    curl -fsSLO https://www.python.org/ftp/python/3.11.9/python-3.11.9-amd64.exe
    curl -fsSLO https://download.mql5.com/cdn/web/metaquotes.software.corp/mt5/mt5setup.exe
    wineboot --init
    wine python-3.11.9-amd64.exe /quiet InstallAllUsers=1 'TargetDir=C:\Python311'
    wine "$PYTHON" -m pip install --no-warn-script-location 'Z:\streamapp\streamapp_mt5-0.1.0-py3-none-any.whl[terminal]'
    wine mt5setup.exe /auto
    wineserver --wait
    echo 'MetaTrader is on the VNC screen at port 5900: log in, set the switches, close it.'
    x11vnc -quiet -forever -display :0 &
    wine 'C:\Program Files\MetaTrader 5\terminal64.exe'
    ;;
terminals)
    [ $# -eq 0 ] || shift
    [ -e /tmp/.X0-lock ] || start_screen
    exec wine "$PYTHON" -m streamapp.terminal "$@"
    ;;
conformance)
    shift
    start_screen
    exec wine "$PYTHON" -m streamapp.cli mt5-conformance --module MetaTrader5 \
        --path 'C:\Program Files\MetaTrader 5\terminal64.exe' "$@"
    ;;
*)
    echo "expected setup, terminals or conformance, got $1" >&2
    exit 2
    ;;
esac
EOF
USER trader
ENV WINEPREFIX=/wine WINEARCH=win64 WINEDEBUG=-all DISPLAY=:0 STREAMAPP_CONFIG='Z:\settings\streamapp.toml'
VOLUME ["/wine", "/data"]
ENTRYPOINT ["streamapp-wine"]

# One image for each part, without what another part or a developer needs: docker build --target trading . (docs/deploy.md)
# Another base: --build-arg PYTHON=...
ARG PYTHON=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

# What has no wheel is built with the base's own setuptools: nothing is installed that no hash or digest names.
FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /venv
COPY --chmod=755 <<'EOF' /venv/bin/streamapp
#!/venv/bin/python
from streamapp.cli import main
main()
EOF

FROM build AS worker-packages
COPY .requirements/worker.txt /requirements.txt
RUN pip wheel --require-hashes --no-build-isolation --wheel-dir /wheels -r /requirements.txt \
    && pip --python /venv/bin/python install --no-index --no-deps /wheels/*.whl

FROM build AS terminal-packages
COPY .requirements/terminal.txt /requirements.txt
RUN pip wheel --require-hashes --no-build-isolation --wheel-dir /wheels -r /requirements.txt \
    && pip --python /venv/bin/python install --no-index --no-deps /wheels/*.whl

FROM build AS simulator-packages
COPY .requirements/simulator.txt /requirements.txt
RUN pip wheel --require-hashes --no-build-isolation --wheel-dir /wheels -r /requirements.txt \
    && pip --python /venv/bin/python install --no-index --no-deps /wheels/*.whl

FROM build AS notifier-packages
COPY .requirements/notifier.txt /requirements.txt
RUN pip wheel --require-hashes --no-build-isolation --wheel-dir /wheels -r /requirements.txt \
    && pip --python /venv/bin/python install --no-index --no-deps /wheels/*.whl

FROM ${PYTHON} AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data streamapp \
    && install --directory --owner streamapp --group streamapp /data
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 STREAMAPP_LOCAL__DATA=/data
WORKDIR /app
COPY streamapp streamapp
VOLUME /data
USER 10001:10001

FROM runtime AS worker
COPY --from=worker-packages /venv /venv
COPY tables tables
COPY agents agents

FROM worker AS trading
EXPOSE 6066
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --start-interval=2s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6066/livez', timeout=4)"]
CMD ["faust", "--loop", "uvloop", "-A", "streamapp.trading", "worker", "-l", "info"]

FROM worker AS warehouse
EXPOSE 6071
HEALTHCHECK --interval=10s --timeout=5s --start-period=2m --start-interval=2s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6071/livez', timeout=4)"]
CMD ["faust", "--loop", "uvloop", "-A", "streamapp.warehouse", "worker", "-l", "info"]

FROM worker AS mirror
EXPOSE 6072
HEALTHCHECK --interval=10s --timeout=5s --start-period=1m --start-interval=2s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6072/livez', timeout=4)"]
CMD ["python", "-m", "streamapp.mirror"]

FROM runtime AS notifier
COPY --from=notifier-packages /venv /venv
EXPOSE 6074
HEALTHCHECK --interval=10s --timeout=5s --start-period=1m --start-interval=2s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6074/livez', timeout=4)"]
CMD ["python", "-m", "streamapp.notifier"]

FROM runtime AS terminals
COPY --from=terminal-packages /venv /venv
EXPOSE 6073
HEALTHCHECK --interval=10s --timeout=5s --start-period=1m --start-interval=2s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6073/livez', timeout=4)"]
CMD ["python", "-m", "streamapp.terminal"]

FROM runtime AS market
COPY --from=simulator-packages /venv /venv
EXPOSE 6080
HEALTHCHECK --interval=10s --timeout=5s --start-period=1m --start-interval=2s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6080/health', timeout=4)"]
CMD ["python", "-m", "streamapp.simulator", "--host", "0.0.0.0", "--port", "6080", "--data", "/data"]

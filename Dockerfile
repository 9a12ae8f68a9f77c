# Our processes in one image; compose.yaml says which one a container is.
FROM python:3.11-slim
WORKDIR /app
COPY requirements.txt pyproject.toml README.md ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
COPY streamapp streamapp
COPY tables tables
COPY agents agents
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && useradd --create-home streamapp && mkdir /data && chown streamapp /data
USER streamapp
ENV PYTHONUNBUFFERED=1 STREAMAPP_LOCAL__DATA=/data
VOLUME /data

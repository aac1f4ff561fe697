# The app as a service: `docker build -t switchboard . && docker run -p 7860:7860 -v switchboard:/data switchboard`.
# A CPU machine: `--build-arg TORCH_INDEX=ADDRESS`, an index that has CPU builds of torch, saves several GB.

FROM python:3.11-slim AS build
ARG TORCH_INDEX=""
ARG PIP_ARGS=""
WORKDIR /build
COPY requirements.txt requirements.lock ./
RUN python -m venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH" \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
# With a CPU build in place the next step finds torch's requirement satisfied and fetches no other.
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install $PIP_ARGS --no-deps --index-url "$TORCH_INDEX" "$(grep -o '^torch==[^ ;]*' requirements.txt)"; \
    fi
# The lock as constraints: its versions, but only of what requirements.txt asks for.
RUN pip install $PIP_ARGS -r requirements.txt -c requirements.lock

FROM python:3.11-slim
# tesseract: text of scanned pages. git: for connectors that read repositories.
RUN apt-get update \
    && apt-get install -y --no-install-recommends tesseract-ocr git \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 switchboard \
    && install -d -o switchboard -g switchboard /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY LICENSE ./
COPY desk/ desk/
COPY index/ index/
COPY adapters/ adapters/
COPY chains/ chains/
COPY app/ app/
COPY desks/ desks/
ENV PATH="/opt/venv/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SWITCHBOARD_HOST=0.0.0.0 \
    SWITCHBOARD_PORT=7860 \
    SWITCHBOARD_HOME=/data
USER switchboard
VOLUME /data
EXPOSE 7860
# The first start builds the index before it answers.
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://localhost:7860/healthz', timeout=4)"]
CMD ["python", "-m", "app"]

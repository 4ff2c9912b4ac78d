# The first stage builds a virtual environment; the second carries it, and nothing that builds.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# The locks before the sources: a change of code leaves these layers as they are.
# There is no compiler here, so a dependency without a wheel should say so at once.
COPY requirements/build.txt requirements/runtime.txt ./
RUN python -m venv --without-pip /opt/processor \
    && pip install --require-hashes --requirement build.txt \
    && pip --python /opt/processor/bin/python install --only-binary :all: \
        --require-hashes --requirement runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY processor processor
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/processor/bin/python install --no-deps --no-index dist/*.whl

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="processor" \
      org.opencontainers.image.description="Event-time windows and anomaly detection over Kinesis" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/processor /opt/processor
# The root may be read-only: pip compiled the bytecode above, and nothing is written but below /tmp.
ENV PATH=/opt/processor/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PROCESSOR_CONFIG=/etc/processor/pipeline.yaml \
    PROCESSOR_HTTP_HOST=0.0.0.0 \
    PROCESSOR_HTTP_PORT=8080
EXPOSE 8080
# By number: runAsNonRoot can check a number, not a name.
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["processor", "health"]
ENTRYPOINT ["processor"]
CMD ["run"]

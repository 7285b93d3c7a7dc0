# The broker, alone: state, policies, keys and the registry's credential come from outside.
FROM python:3.11-slim-bookworm AS build
# `traces` has what BROKER_TRACES_URL needs beside the rest: docker build --build-arg REQUIREMENTS=traces .
ARG REQUIREMENTS=run
WORKDIR /build
COPY requirements/${REQUIREMENTS}.txt requirements/run.txt
RUN python -m venv /broker/venv \
 && /broker/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/run.txt

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /broker --shell /usr/sbin/nologin broker \
 && install -d -o broker -g broker -m 0700 /state /spool
COPY --from=build /broker/venv /broker/venv
COPY broker /broker/app/broker
ENV PATH=/broker/venv/bin:$PATH \
    PYTHONPATH=/broker/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BROKER_HOST=0.0.0.0 \
    BROKER_POLICIES=/policies \
    BROKER_STATE_URL=sqlite:////state/state.db
USER broker
WORKDIR /broker
VOLUME ["/state"]
EXPOSE 8000
# Alive, not ready: an issuer's outage is no reason to restart a container.
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s CMD ["python", "-c", \
  "import os,ssl,urllib.request as u; tls='BROKER_TLS_CERTIFICATE' in os.environ; c=ssl._create_unverified_context() if tls else None; u.urlopen(('https' if tls else 'http')+'://127.0.0.1:'+os.environ.get('BROKER_PORT','8000')+'/healthz',timeout=2,context=c)"]
ENTRYPOINT ["python", "-m", "broker"]
CMD ["serve"]

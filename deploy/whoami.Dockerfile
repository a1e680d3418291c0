# whoami: the demo's service. Build context: target/image (see build-images.sh).
ARG BASE=debian:trixie-slim
FROM $BASE
ARG VERSION=dev
LABEL org.opencontainers.image.title="whoami" \
      org.opencontainers.image.description="Answers HTTP requests with its host name" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY whoami /usr/local/bin/whoami
EXPOSE 80
# No HEALTHCHECK: a container that has one stays unregistered until Docker's first probe, seconds later.
USER nobody
ENTRYPOINT ["whoami"]

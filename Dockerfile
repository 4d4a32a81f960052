# An image with egressd, egressd-cloud and kubectl's plugin alone: static binaries need nothing beside them. `make image` puts them where this expects them:
# docker build --file Dockerfile --build-arg VERSION=0.1.0 --tag egressd:0.1.0 target/image
FROM scratch
ARG VERSION=unknown
LABEL org.opencontainers.image.title="egressd"
LABEL org.opencontainers.image.description="Gives every container its own way out: the NIC, the gateway and the public address"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.version="$VERSION"
COPY egressd /bin/egressd
COPY kubectl-egress /bin/kubectl-egress
COPY egressd-cloud /bin/egressd-cloud
# By which egressd-cloud knows the cloud.
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENTRYPOINT ["/bin/egressd"]

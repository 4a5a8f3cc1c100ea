# SPDX-License-Identifier: LGPL-2.1-or-later
# What is in the packages for Debian and for rpm systems, and where: one list for both.
#
#     make -f packaging/files.mk build
#     make -f packaging/files.mk library DESTDIR=...     python3-kdumpfence: what programs import
#     make -f packaging/files.mk programs DESTDIR=...    kdumpfence, which needs the library
#
# in the root of the source. BUILDER is any Python with Cython 3.1 or newer, which need not be
# the one that the agent will run under.

SYSTEM  := /usr/bin/python3
BUILDER ?= $(SYSTEM)
STATIC  ?= auto
SIGNING ?= auto
SBINDIR ?= /usr/sbin
# Where units belong; empty: they are not installed here.
UNITDIR ?= /usr/lib/systemd/system
# Where the system's Python looks for what its packages bring.
SITEDIR ?= $(call ask,path('platlib'))
DESTDIR ?=

HOME    := /usr/lib/kdumpfence
MODULES  = $(SITEDIR)/kdumpfence
BUILT   := build/package
version := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/kdumpfence/_version.py)
ask      = $(shell $(SYSTEM) -ISc "import sysconfig; print(sysconfig.get_$(1))")
CORE     = $(BUILT)/_kdumpwire$(call ask,config_var('EXT_SUFFIX'))

signing  = KDUMPFENCE_SIGNING=$(SIGNING) $(BUILDER)
flags    = $(shell $(signing) src/native/build_flags.py $(1))
INSTALL := install -p

build:
	mkdir -p $(BUILT)
	$(signing) src/native/build_flags.py signing
	$(BUILDER) -m cython -3 --module-name kdumpfence._kdumpwire src/_kdumpwire.pyx \
		-o $(BUILT)/_kdumpwire.c
	$(CC) $(CPPFLAGS) $(CFLAGS) $(call flags,compile) -I$(call ask,path('include')) \
		-I$(call ask,path('platinclude')) -fPIC -shared $(BUILT)/_kdumpwire.c \
		$(LDFLAGS) $(call flags,link) -o $(CORE)
	CFLAGS="$(CPPFLAGS) $(CFLAGS)" $(signing) src/native/build_sender.py $(BUILT)/_native \
		--static $(STATIC)

# As pip would have it, so that programs which ask for "kdumpfence" find it; an sdist has PKG-INFO.
library:
	cd src/kdumpfence && find * '(' -name '*.py' -o -name '*.pyi' -o -name py.typed ')' \
		-exec $(INSTALL) -D -m 644 {} $(DESTDIR)$(MODULES)/{} \;
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(MODULES)/daemon/page/files src/kdumpfence/daemon/page/files/*
	$(INSTALL) -m 644 $(CORE) $(DESTDIR)$(MODULES)
	$(INSTALL) -D -m 644 PKG-INFO $(DESTDIR)$(SITEDIR)/kdumpfence-$(version).dist-info/METADATA

# The programs find the library by the link, and nothing else beside it: the agent is to import
# what is ours and Python's own, whatever else somebody has installed.
programs:
	$(INSTALL) -d $(DESTDIR)$(MODULES)/_native $(DESTDIR)$(SBINDIR) $(DESTDIR)$(HOME)/modules
	ln -sr $(DESTDIR)$(MODULES) $(DESTDIR)$(HOME)/modules/kdumpfence
	$(INSTALL) -m 755 $(BUILT)/_native/* $(DESTDIR)$(MODULES)/_native
	cd src/kdumpfence/install/distributions && find * -type d \
		-exec $(INSTALL) -d $(DESTDIR)$(MODULES)/install/distributions/{} \;
	cd src/kdumpfence/install/distributions && find * -type f ! -exec grep -q '^#!' {} \; \
		-exec $(INSTALL) -m 644 {} $(DESTDIR)$(MODULES)/install/distributions/{} \;
	cd src/kdumpfence/install/distributions && find * -type f -exec grep -q '^#!' {} \; \
		-exec $(INSTALL) -m 755 {} $(DESTDIR)$(MODULES)/install/distributions/{} \;
	$(INSTALL) -m 755 src/kdumpfence/install/distributions/common/fence_kdump $(DESTDIR)$(SBINDIR)
	$(INSTALL) -m 755 packaging/common/kdumpfence $(DESTDIR)$(SBINDIR)
	$(INSTALL) -m 755 packaging/common/kdumpfenced $(DESTDIR)$(SBINDIR)
	$(if $(UNITDIR),$(INSTALL) -D -m 644 -t $(DESTDIR)$(UNITDIR) packaging/systemd/*)
	$(INSTALL) -d $(DESTDIR)/etc/kdumpfence
	$(INSTALL) -m 644 packaging/kdumpfenced.toml $(DESTDIR)/etc/kdumpfence
	$(INSTALL) -d $(DESTDIR)/usr/share/kdumpfence/monitoring
	$(INSTALL) -m 644 packaging/monitoring/* $(DESTDIR)/usr/share/kdumpfence/monitoring
	$(INSTALL) -D -m 644 -t $(DESTDIR)/usr/share/kdumpfence/wireshark packaging/wireshark/kdumpfence.lua
	$(INSTALL) -D -m 644 -t $(DESTDIR)/usr/share/kdumpfence/selinux packaging/selinux/kdumpfence.te
	$(INSTALL) -d $(DESTDIR)/usr/share/man/man8 $(DESTDIR)/usr/lib/firewalld/services
	$(INSTALL) -m 644 docs/*.8 $(DESTDIR)/usr/share/man/man8
	$(INSTALL) -m 644 packaging/common/firewalld.xml \
		$(DESTDIR)/usr/lib/firewalld/services/kdumpfence.xml

.PHONY: build library programs

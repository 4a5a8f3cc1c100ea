/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A veth pair between two network namespaces of this process: a device with NAPI, which lo is not.

   Everything is gone when the process ends. Needs root and ip(8). */
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>

static pthread_barrier_t veth_step;
static pid_t veth_sender;

static inline void shell(const char *command)
{
    int status = system(command);
    if (status != 0) {
        errno = EPERM;
        refused(command);
    }
}

static inline void offload(const char *device, uint32_t what, uint32_t value)
{
    struct ethtool_value wanted = {what, value};
    struct ifreq request = {.ifr_data = (char *)&wanted};
    int fd = udp_socket();
    strcpy(request.ifr_name, device);
    if (ioctl(fd, SIOCETHTOOL, &request) < 0)
        refused("SIOCETHTOOL");
    close(fd);
}

/* In the reader's main thread, before any socket. `gather_us`: how long NAPI holds back what it
   could put together with a later datagram (gro_flush_timeout); 0: not at all. */
static inline void veth_reader(long gather_us)
{
    char command[200];
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
        refused("unshare");
    reader_address = 0x0a020001;
    first_source = 0x0a010000;
    pthread_barrier_wait(&veth_step);                   /* the sender has its namespace */
    snprintf(command, sizeof command, "ip link add vb type veth peer name va netns %d", veth_sender);
    shell(command);
    shell("ip link set lo up && ip link set vb up && ip addr add 10.2.0.1/24 dev vb");
    offload("vb", ETHTOOL_SGRO, 1);                     /* makes it use NAPI */
    if (gather_us) {
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
        if (mount("sysfs", "/sys", "sysfs", 0, NULL) < 0)
            refused("mount of sysfs");
        snprintf(command, sizeof command, "cd /sys/class/net/vb && echo 100 > napi_defer_hard_irqs"
                 " && echo %ld > gro_flush_timeout", gather_us * 1000);
        shell(command);
    }
    pthread_barrier_wait(&veth_step);                   /* the sender has its end of the pair */
    pthread_barrier_wait(&veth_step);                   /* and it is up */
    shell("ip route add 10.1.0.0/16 via 10.2.0.2");
}

/* In the sender's thread. */
static inline void veth_send(void)
{
    if (unshare(CLONE_NEWNET) < 0)
        refused("unshare");
    veth_sender = syscall(SYS_gettid);
    pthread_barrier_wait(&veth_step);
    pthread_barrier_wait(&veth_step);
    shell("ip link set lo up && ip link set va up && ip addr add 10.2.0.2/24 dev va"
          " && ip route add local 10.1.0.0/16 dev lo");
    offload("va", ETHTOOL_STSO, 0);                     /* or what it sends goes past NAPI */
    pthread_barrier_wait(&veth_step);
}

# SPDX-License-Identifier: LGPL-2.1-or-later
"""All that the sender knows while it runs: nodes, their addresses, sockets, look-ups.

Structures and limits alone; what happens with them stands in the files behind this one. The
limits are those of kdumpfence/sender/, where they are explained.
"""

cdef enum:
    ADDRESSES_OF_A_NAME = 64
    LOOK_UPS_AT_ONCE = 64
    LOOK_UPS_OF_A_NAME = 3
    LOOK_UP_STACK = 262144      # bytes; only what is touched takes memory
    MOST_LANES = 8
    SOCKETS = 2 * (1 + MOST_LANES)  # that hear questions
    AT_A_TIME = 64              # messages to neighbours of whom nobody knows whether they answer
    HELD_AT_MOST = 53248        # bytes of messages that wait, for them to be sent again

cdef enum:                      # nanoseconds
    PATIENCE_NS = 5000000
    ANSWERS_NS = 5000000
    TRUST_NS = 50000000
    NAMES_SLICE = 100000000
    GIVES_UP_NS = 400000000
    SECOND = 1000000000

ctypedef struct Peer:
    # One destination: number i of the schedule.
    Address address
    int index                   # in the transmitter of its family
    uint8_t lane                # that has the message which is under way
    uint8_t told[20]            # bits: errors that were complained of

ctypedef struct Lane:
    # One socket of a family.
    int fd
    int64_t trusting            # when messages left through it on trust; -1: it was looked at since
    int narrow                  # it lets in what seems to be signed, and no other question; -1: all

ctypedef struct Channel:
    # The sockets of a family: one, as long as no neighbour keeps the kernel waiting. What waits
    # for one fills the send buffer, and must not be in the way of what is for the others.
    CTransmitter transmitter
    Lane lanes[MOST_LANES]
    int count
    int told                    # whether the kernel tells which messages left

ctypedef struct Node:
    char *name
    int told
    # Of the look-ups, if it is a name without an address so far:
    int waiting
    int running
    int64_t due                 # -1: not before an answer
    int64_t delay
    int64_t asked_at
    int asked                   # no look-up has answered yet

ctypedef struct Answers:
    int count
    Address addresses[ADDRESSES_OF_A_NAME]

ctypedef struct Answer:
    # Of one look-up; its thread's until it is in the list.
    Sender *sender
    int node
    int code                    # of getaddrinfo
    int error                   # errno beside EAI_SYSTEM
    addrinfo *found
    Answer *next

ctypedef struct Sender:
    Options options
    Node *nodes
    Peer *peers
    uint32_t peer_room
    CSources sources               # address -> number
    CSchedule schedule
    Channel channels[2]         # IPv4, IPv6
    int network                 # netlink, or -1
    stat_t files[3]             # that say what names mean
    int read_end                # of the pipe that wakes the loop
    int write_end
    pthread_mutex_t lock
    Answer *answers
    sigset_t signals            # the mask to wait with
    int crashed                 # this is a crash kernel
    # Who speaks, and with what key; `sequence` is that of the last packet.
    CPacket packet
    MacKey key
    uint8_t status[PACKET_LENGTH]   # what goes out in this round
    # Questions.
    Lane ports[2]               # of the port that is asked, IPv4 and IPv6; `fd` -1: not to be had
    int64_t port_tried[2]
    int64_t window_ends         # in which there is a share of answers
    int shares[2]               # what is left of them: for all others, for those with the key
    int64_t narrowed            # until when sockets are `narrow`; 0: none is

cdef Sender the_sender          # there is one, and it needs no pages of its own
cdef volatile int ended_by      # the signal; 0: none yet

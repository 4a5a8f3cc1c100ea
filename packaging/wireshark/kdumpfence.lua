-- SPDX-License-Identifier: LGPL-2.1-or-later
-- A dissector for Wireshark and tshark (3.0 or newer) of what kdumpfence and the stock programs send.
--
--     wireshark -X lua_script:kdumpfence.lua
--     tshark -X lua_script:kdumpfence.lua -Y kdumpfence -r FILE
--
-- or, for good, in ~/.local/lib/wireshark/plugins. docs/protocol.md has the layout. What begins like
-- one of its datagrams is found on any port; on the port of the settings anything is said to be one,
-- and what is wrong with it. MACs are shown, not checked.

local PACKET, TRAILER, NAME = 152, 144, 64
local MAGIC = 0x1B302A40
local HEADS = {KDFQUEST = "question", KDFALIVE = "alive"}
local STATES = {[1] = "started", [2] = "dumping", [3] = "finished", [4] = "failed"}
local AUTHS = {[0] = "not signed", [1] = "HMAC-SHA256"}

local proto = Proto("kdumpfence", "kdumpfence")

proto.prefs.port = Pref.uint("UDP port", 7410, "Where nodes in their crash kernel are heard")

local f = {
    kind = ProtoField.string("kdumpfence.kind", "Kind"),
    byteorder = ProtoField.string("kdumpfence.byteorder", "Byte order"),
    magic = ProtoField.uint32("kdumpfence.magic", "Magic", base.HEX),
    version = ProtoField.uint32("kdumpfence.version", "Version"),
    head = ProtoField.string("kdumpfence.head", "Head"),
    trailer = ProtoField.bytes("kdumpfence.trailer", "Trailer"),
    trailer_magic = ProtoField.string("kdumpfence.trailer.magic", "Magic of the trailer"),
    length = ProtoField.uint16("kdumpfence.length", "Length"),
    auth = ProtoField.uint8("kdumpfence.auth", "Auth", base.DEC, AUTHS),
    state = ProtoField.uint8("kdumpfence.state", "State", base.DEC, STATES),
    key_id = ProtoField.uint32("kdumpfence.key_id", "Key id", base.HEX),
    interval = ProtoField.uint32("kdumpfence.interval", "Interval, ms"),
    session = ProtoField.uint64("kdumpfence.session", "Session", base.HEX),
    sequence = ProtoField.uint64("kdumpfence.sequence", "Sequence"),
    nonce = ProtoField.bytes("kdumpfence.nonce", "Nonce"),
    name = ProtoField.string("kdumpfence.name", "Name"),
    mac = ProtoField.bytes("kdumpfence.mac", "MAC"),
}
proto.fields = f

local e = {
    rejected = ProtoExpert.new("kdumpfence.rejected", "Not a message",
        expert.group.MALFORMED, expert.severity.ERROR),
    malformed = ProtoExpert.new("kdumpfence.malformed", "Not a packet",
        expert.group.MALFORMED, expert.severity.WARN),
    trailer = ProtoExpert.new("kdumpfence.unknown_trailer", "A trailer that is not kdumpfence's",
        expert.group.UNDECODED, expert.severity.NOTE),
}
proto.experts = e

local function empty(range)
    return not range:bytes():tohex():find("[^0]")
end

local function name(tvb)
    return tvb(56, NAME):raw():match("^[^\0]*")
end

-- "little-endian" or "big-endian" if a message's magic is there, and its version.
local function message(tvb)
    if tvb:len() >= 8 then
        if tvb(0, 4):le_uint() == MAGIC then return "little-endian", tvb(4, 4):le_uint() end
        if tvb(0, 4):uint() == MAGIC then return "big-endian", tvb(4, 4):uint() end
    end
end

-- "question" or "alive", if that is how it begins.
local function asking(tvb)
    return tvb:len() >= 8 and HEADS[tvb(0, 8):raw()] or nil
end

-- Why these bytes, which begin like this kind of packet, are none; nil if they are one.
local function why_none(tvb, kind)
    if tvb:len() ~= PACKET then return tvb:len() .. " bytes, not " .. PACKET end
    if tvb(8, 4):raw() ~= "kdf1" then return "the trailer's magic is not kdf1" end
    if tvb(12, 2):uint() ~= TRAILER then return "the length is not " .. TRAILER end
    local signed = not empty(tvb(16, 4))
    local auth, state = tvb(14, 1):uint(), tvb(15, 1):uint()
    if auth > 1 then return "signed in an unknown way" end
    if auth == 0 and signed then return "a key id, but not signed" end
    if auth == 1 and not signed then return "signed, but without a key id" end
    if auth == 0 and not empty(tvb(120, 32)) then return "a MAC, but not signed" end
    if kind == "status" then
        if not STATES[state] then return "a status without a known state" end
    elseif state ~= 0 or not empty(tvb(20, 20)) then
        return "state, interval, session or sequence, which only a status has"
    end
    if not tvb(56, NAME):raw():find("^[!-~]+\0*$") then
        return "the name is not 1 to 64 ASCII characters, padded with zeroes"
    end
end

local function add_trailer(tvb, tree)
    tree:add(f.trailer_magic, tvb(8, 4))
    tree:add(f.length, tvb(12, 2))
    tree:add(f.auth, tvb(14, 1))
    tree:add(f.state, tvb(15, 1))
    tree:add(f.key_id, tvb(16, 4))
    tree:add(f.interval, tvb(20, 4))
    tree:add(f.session, tvb(24, 8))
    tree:add(f.sequence, tvb(32, 8))
    tree:add(f.nonce, tvb(40, 16))
    tree:add(f.name, tvb(56, NAME), name(tvb))
    tree:add(f.mac, tvb(120, 32))
end

local function add_packet(tvb, tree, kind, byteorder)
    local said = name(tvb)
    if kind == "status" then
        said = said .. " " .. STATES[tvb(15, 1):uint()] .. (empty(tvb(40, 16)) and "" or ", answer")
            .. ", sequence " .. tostring(tvb(32, 8):uint64()) .. ", " .. byteorder
    end
    if empty(tvb(16, 4)) then
        said = said .. ", not signed"
    else
        said = said .. ", key " .. tvb(16, 4):bytes():tohex(true)
    end
    add_trailer(tvb, tree)
    return kind .. ": " .. said
end

-- The tree of a datagram; the line about it.
local function add(tvb, tree)
    local byteorder, version = message(tvb)
    local kind = asking(tvb)
    if byteorder then
        local add_number = byteorder == "little-endian" and tree.add_le or tree.add
        tree:add(f.byteorder, tvb(0, 4), byteorder)
        add_number(tree, f.magic, tvb(0, 4))
        add_number(tree, f.version, tvb(4, 4))
        if version ~= 1 then
            tree:add_proto_expert_info(e.rejected, "Not a message: version " .. version)
            return "not a message: version " .. version
        end
        if tvb:len() == 8 then return "message: " .. byteorder, "message" end
        kind = "status"
    elseif kind then
        tree:add(f.head, tvb(0, 8))
    else
        local why = tvb:len() < 8 and "shorter than 8 bytes" or "the magic is another"
        tree:add_proto_expert_info(e.rejected, "Not a message: " .. why)
        return "not a message: " .. why
    end
    local why = why_none(tvb, kind)
    if not why then return add_packet(tvb, tree, kind, byteorder), kind end
    local ours = tvb:len() >= 12 and tvb(8, 4):raw() == "kdf1"
    if ours and tvb:len() == PACKET then add_trailer(tvb, tree)
    elseif tvb:len() > 8 then tree:add(f.trailer, tvb(8)) end
    if kind ~= "status" then
        tree:add_proto_expert_info(e.malformed, "Not a packet: " .. why)
        return "not a packet: " .. why
    end
    -- Whoever else puts something behind a message does no wrong.
    tree:add_proto_expert_info(ours and e.malformed or e.trailer,
        "A message, and nothing more: " .. why)
    return "message: " .. byteorder .. ", and a trailer: " .. why, "message"
end

function proto.dissector(tvb, pinfo, tree)
    pinfo.cols.protocol = "kdumpfence"
    local subtree = tree:add(proto, tvb())
    local said, kind = add(tvb, subtree)
    if kind then subtree:add(f.kind, tvb(0, 8), kind):set_generated() end
    subtree:append_text(", " .. said)
    pinfo.cols.info = said
    return tvb:len()
end

-- Answers go to whatever port the question came from.
proto:register_heuristic("udp", function(tvb, pinfo, tree)
    local _, version = message(tvb)
    if version ~= 1 and not (asking(tvb) and tvb:len() == PACKET) then return false end
    proto.dissector(tvb, pinfo, tree)
    return true
end)

local registered

local function register()
    local ports = DissectorTable.get("udp.port")
    if registered then ports:remove(registered, proto) end
    registered = proto.prefs.port
    ports:add(registered, proto)
end

proto.prefs_changed = register
register()

#version 450
// What validation.c dispatches twice without a barrier, to see whether that is reported.
layout(local_size_x = 1) in;
layout(std430, set = 0, binding = 0) readonly buffer From
{
    uint from;
};
layout(std430, set = 0, binding = 1) buffer To
{
    uint to;
};

void main()
{
    to = from;
}

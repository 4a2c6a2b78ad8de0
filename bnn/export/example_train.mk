# make: the example for this machine; make cortex-m: the network for a microcontroller, and what it takes.
CFLAGS = -std=c99 -O2 -ffp-contract=off -Wall -Wextra
CORTEX = -mcpu=cortex-m4 -mthumb

learn: main.c $name.c $name.h
	$$(CC) $$(CFLAGS) -o $$@ main.c $name.c -lm

cortex-m: $name.c $name.h
	arm-none-eabi-gcc $$(CFLAGS) $$(CORTEX) -c $name.c
	arm-none-eabi-size $name.o

.PHONY: cortex-m
